//! Makes a view out of an image and the parameters that were drawn for it.

use lockstep_jpeg::PlanarImage;

use crate::blur::Blur;
use crate::color;
use crate::finish::{self, Finish};
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
            finish::write(&self.planes, finish, out.as_chunks_mut().0);
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
    use crate::view::{CropBox, JitterForm, JitterStep, View, ViewKey};

    fn gray(width: u32, height: u32, value: u8) -> PlanarImage {
        let samples = vec![value; width as usize * height as usize];
        let plane = Plane { samples, stride: width as usize, shrink: [1, 1] };
        PlanarImage { width, height, colour: Colour::Gray, planes: vec![plane] }
    }

    /// Pixels of one row, as RGB.
    fn rgb(pixels: &[[u8; 3]]) -> PlanarImage {
        let width = u32::try_from(pixels.len()).unwrap();
        let plane = |channel| {
            let samples = pixels.iter().map(|pixel: &[u8; 3]| pixel[channel]).collect();
            Plane { samples, stride: pixels.len(), shrink: [1, 1] }
        };
        let planes = (0..3).map(plane).collect();
        PlanarImage { width, height: 1, colour: Colour::Rgb, planes }
    }

    /// What one step of the authors' jitter makes of two pixels in a row.
    fn jittered(pixels: [[u8; 3]; 2], step: JitterStep) -> [[f32; 3]; 2] {
        let nothing = JitterStep::Hue(0.0);
        let params = ViewParams {
            crop: CropBox { left: 0, top: 0, width: 2, height: 1 },
            flip: false,
            jitter: Some([step, nothing, nothing, nothing]),
            grayscale: false,
            blur: None,
            solarize: false,
        };
        let recipe = ViewRecipe {
            jitter_form: JitterForm::Reference,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..ViewRecipe::imagenet(2)
        };
        let mut out = vec![0.0; recipe.view_len()];
        Augmenter::default().apply(&rgb(&pixels), &params, &recipe, &mut out);
        let out = out.as_chunks().0;
        // One row was stretched to two.
        assert_eq!(out[..2], out[2..]);
        [out[0], out[1]]
    }

    #[test]
    fn the_reference_form_of_jitter_is_that_of_the_formulas() {
        // (0.8, 0.4, 0.2) has V = 0.8 and S = 0.75, (0.2, 0.2, 0.6) V = 0.6 and S = 2/3.
        let pixels = [[204, 102, 51], [51, 51, 153]];
        let cases = [
            (JitterStep::Brightness(1.3), [[1.0, 0.7, 0.5], [0.5, 0.5, 0.9]]),
            (JitterStep::Brightness(0.7), [[0.5, 0.1, 0.0], [0.0, 0.0, 0.3]]),
            // The channels' means are 0.5, 0.3 and 0.4.
            (JitterStep::Contrast(0.5), [[0.65, 0.35, 0.3], [0.35, 0.25, 0.5]]),
            (JitterStep::Contrast(1.5), [[0.95, 0.45, 0.1], [0.05, 0.15, 0.7]]),
            (JitterStep::Saturation(0.5), [[0.8, 0.6, 0.5], [0.4, 0.4, 0.6]]),
            (JitterStep::Saturation(1.2), [[0.8, 0.32, 0.08], [0.12, 0.12, 0.6]]),
            (JitterStep::Saturation(2.0), [[0.8, 0.8 / 3.0, 0.0], [0.0, 0.0, 0.6]]),
            // A third of a turn: red becomes green, green blue, blue red.
            (JitterStep::Hue(1.0 / 3.0), [[0.2, 0.8, 0.4], [0.6, 0.2, 0.2]]),
        ];
        for (step, expected) in cases {
            let found = jittered(pixels, step);
            let pairs = found.as_flattened().iter().zip(expected.as_flattened());
            for (found, expected) in pairs {
                assert!((found - expected).abs() < 1e-6, "{step:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn gray_pixels_have_no_saturation_to_scale() {
        let gray = [[128, 128, 128], [0, 0, 0]];
        let found = jittered(gray, JitterStep::Saturation(1.2));
        assert_eq!(found, gray.map(|pixel| pixel.map(|value| f32::from(value) * (1.0 / 255.0))));
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
