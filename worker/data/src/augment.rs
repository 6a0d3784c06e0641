//! Makes a view out of an image and the parameters that were drawn for it.

use lockstep_jpeg::PlanarImage;

use crate::blur::Blur;
use crate::color::{self, Finish};
use crate::planes::Planes;
use crate::resize::{Part, Resizer};
use crate::view::{ViewParams, ViewRecipe};
use crate::weights::{Reading, Span};

/// Makes views; keeps its buffers between images, so each thread has its own.
#[derive(Debug, Default)]
pub struct Augmenter {
    resizer: Resizer,
    planes: Planes,
    blur: Blur,
}

impl Augmenter {
    /// Writes one view as normalized `f32`, rows of pixels of three channels (NHWC).
    ///
    /// # Panics
    ///
    /// If `out` is not [`ViewRecipe::view_len`] long or the crop leaves the image.
    pub fn apply(
        &mut self,
        image: &PlanarImage,
        params: &ViewParams,
        recipe: &ViewRecipe,
        out: &mut [f32],
    ) {
        self.resize(image, params, recipe);
        self.colour(params, recipe, out);
        self.blur(params, recipe, out);
    }

    /// The first third of [`Augmenter::apply`]: crop, resize, flip.
    ///
    /// # Panics
    ///
    /// If the crop leaves the image.
    pub fn resize(&mut self, image: &PlanarImage, params: &ViewParams, recipe: &ViewRecipe) {
        let crop = params.crop;
        let part = Part {
            columns: Span::alone(crop.left, crop.width),
            rows: Span::alone(crop.top, crop.height),
        };
        let reading = if params.flip { Reading::Mirrored } else { Reading::Forward };
        self.resizer.resize(image, &part, (recipe.size, recipe.size), reading, &mut self.planes);
    }

    /// The second third: jitter and grayscale, and the rest if there is no blur.
    ///
    /// # Panics
    ///
    /// If `out` is not [`ViewRecipe::view_len`] long.
    pub fn colour(&mut self, params: &ViewParams, recipe: &ViewRecipe, out: &mut [f32]) {
        assert_eq!(out.len(), recipe.view_len(), "length of the view");
        color::jitter(&mut self.planes, params, recipe.jitter_form);
        if params.blur.is_none() {
            let finish = finish(params, recipe);
            color::finish(&self.planes, finish, out.as_chunks_mut().0);
        }
    }

    /// The last third: blur, solarize, normalize.
    pub fn blur(&mut self, params: &ViewParams, recipe: &ViewRecipe, out: &mut [f32]) {
        if let Some(sigma) = params.blur {
            let channels = if params.grayscale { 1 } else { 3 };
            let kernel = (recipe.blur_kernel as usize, sigma);
            let finish = finish(params, recipe);
            self.blur.write(&self.planes, channels, kernel, finish, out.as_chunks_mut().0);
        }
    }
}

fn finish(params: &ViewParams, recipe: &ViewRecipe) -> Finish {
    Finish::new(params.solarize, recipe.mean, recipe.std)
}

#[cfg(test)]
mod tests {
    use lockstep_jpeg::{Colour, Plane};

    use super::*;
    use crate::sample::SampleId;
    use crate::view::{View, ViewKey};

    fn gray(width: u32, height: u32, value: u8) -> PlanarImage {
        let samples = vec![value; width as usize * height as usize];
        let plane = Plane { samples, stride: width as usize, shrink: [1, 1] };
        PlanarImage { width, height, colour: Colour::Gray, planes: vec![plane] }
    }

    #[test]
    fn the_widest_kernel_that_is_allowed_can_be_applied() {
        let recipe = ViewRecipe { blur_kernel: 15, ..ViewRecipe::imagenet(8) };
        recipe.check().unwrap();
        let key = ViewKey::new(11, 2, SampleId(0), View::One);
        let params = ViewParams::draw(&recipe, 9, 8, key);
        let mut out = vec![0.0; recipe.view_len()];
        Augmenter::default().apply(&gray(9, 8, 128), &params, &recipe, &mut out);
        assert!(out.iter().all(|value| value.is_finite()));
    }
}
