//! The parameters of one augmented view, drawn purely. [`crate::Augmenter`] applies them.
//!
//! ```text
//! crop + resize → flip → jitter → grayscale → blur → solarize → normalize
//! ```
//!
//! The steps, their order and their default numbers are the paper's (Grill et
//! al. 2020, arXiv:2006.07733, appendix B). Every draw has its own index, so
//! switching one step off does not change the draws of the others.

pub use lockstep_jpeg::Region as CropBox;

use crate::error::DataError;
use crate::keyed::{self, Key, Purpose};
use crate::sample::SampleId;

/// Attempts at a crop that fits before the centre is taken, as in torchvision.
const CROP_TRIES: u64 = 10;

/// Everything that can be chosen about augmentation.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewRecipe {
    /// Side of the square view, in pixels.
    pub size: u32,
    /// Least and largest area of a crop, as a fraction of the image.
    pub scale: [f64; 2],
    /// Least and largest width / height of a crop.
    pub ratio: [f64; 2],
    /// Probability of mirroring left and right.
    pub flip_p: f64,
    /// Probability of colour jitter.
    pub jitter_p: f64,
    /// What the steps of colour jitter do with their factors.
    pub jitter_form: JitterForm,
    /// Brightness factor is drawn from 1 ± this, not below 0.
    pub brightness: f64,
    /// Contrast factor is drawn from 1 ± this, not below 0.
    pub contrast: f64,
    /// Saturation factor is drawn from 1 ± this, not below 0.
    pub saturation: f64,
    /// Hue shift is drawn from ± this, in turns, at most 0.5.
    pub hue: f64,
    /// Probability of grayscale.
    pub gray_p: f64,
    /// Probability of blur, for view one and two.
    pub blur_p: [f64; 2],
    /// Least and largest standard deviation of the blur, in pixels.
    pub blur_sigma: [f64; 2],
    /// Taps of the blur, an odd number.
    pub blur_kernel: u32,
    /// Probability of solarizing, for view one and two.
    pub solarize_p: [f64; 2],
    /// Mean that is taken off, per channel.
    pub mean: [f32; 3],
    /// Standard deviation that is divided by, per channel.
    pub std: [f32; 3],
}

impl ViewRecipe {
    /// The paper's augmentations at `size`, with the mean and deviation of ImageNet.
    pub fn imagenet(size: u32) -> Self {
        Self {
            size,
            scale: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip_p: 0.5,
            jitter_p: 0.8,
            jitter_form: JitterForm::Torchvision,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.2,
            hue: 0.1,
            gray_p: 0.2,
            blur_p: [1.0, 0.1],
            blur_sigma: [0.1, 2.0],
            // A tenth of the size, made odd: 23 at 224.
            blur_kernel: size / 20 * 2 + 1,
            solarize_p: [0.0, 0.2],
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }

    /// Checks the numbers against each other.
    ///
    /// # Errors
    ///
    /// The first field that cannot work, with the range that can.
    pub fn check(&self) -> Result<(), DataError> {
        let fields = [
            ("size", self.size > 0, "must be 1 or more"),
            ("scale", is_range(self.scale, 0.0, 1.0), "must be two rising numbers in 0..=1"),
            ("ratio", is_range(self.ratio, 0.0, f64::MAX), "must be two rising positive numbers"),
            ("flip_p", is_share(self.flip_p), "must be in 0..=1"),
            ("jitter_p", is_share(self.jitter_p), "must be in 0..=1"),
            ("brightness", is_strength(self.brightness), "must be a finite number from 0"),
            ("contrast", is_strength(self.contrast), "must be a finite number from 0"),
            ("saturation", is_strength(self.saturation), "must be a finite number from 0"),
            ("hue", (0.0..=0.5).contains(&self.hue), "must be in 0..=0.5"),
            ("gray_p", is_share(self.gray_p), "must be in 0..=1"),
            ("blur_p", self.blur_p.into_iter().all(is_share), "must be two numbers in 0..=1"),
            (
                "blur_sigma",
                is_range(self.blur_sigma, 0.0, f64::MAX),
                "must be two rising positive numbers",
            ),
            (
                "blur_kernel",
                self.blur_kernel % 2 == 1 && self.blur_kernel / 2 < self.size,
                "must be odd and smaller than twice the size",
            ),
            ("solarize_p", self.solarize_p.into_iter().all(is_share), "must be in 0..=1"),
            ("mean", self.mean.iter().all(|m| m.is_finite()), "must be three finite numbers"),
            ("std", self.std.iter().all(|s| s.is_normal() && *s > 0.0), "must be positive"),
        ];
        match fields.into_iter().find(|(_, holds, _)| !holds) {
            Some((name, _, rule)) => Err(DataError::setting(name, rule)),
            None => Ok(()),
        }
    }

    /// `f32` values in one view.
    pub fn view_len(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }
}

/// Which of the two views of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// The view that is always blurred in the paper.
    One,
    /// The view that is sometimes solarized.
    Two,
}

/// Names the draws of one view: (seed, data epoch, sample, view).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewKey {
    key: Key,
    view: View,
}

impl ViewKey {
    /// The draws for `view` of `sample` in `data_epoch` of a run.
    pub fn new(seed: u64, data_epoch: u64, sample: SampleId, view: View) -> Self {
        let key = Key::new(seed)
            .derive(Purpose::Augment, data_epoch)
            .derive(Purpose::Sample, sample.0)
            .derive(Purpose::View, view as u64);
        Self { key, view }
    }

    fn happens(self, draw: Draw, probability: f64) -> bool {
        self.key.unit(draw as u64) < probability
    }

    fn between(self, draw: Draw, [low, high]: [f64; 2]) -> f64 {
        self.key.between(draw as u64, low, high)
    }
}

/// Index of each draw of a view. Never renumber: it would change every run.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Draw {
    Flip,
    Jitter,
    Brightness,
    Contrast,
    Saturation,
    Hue,
    Gray,
    Blur,
    BlurSigma,
    Solarize,
    /// The first of four per try; the last index in use.
    Crop,
}

/// The two published forms of colour jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JitterForm {
    /// The ports': brightness multiplies, contrast and saturation blend with luma.
    Torchvision,
    /// The authors': brightness adds, contrast keeps the channels' means, saturation is that of HSV.
    Reference,
}

/// One step of colour jitter with its factor, 1 for no change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum JitterStep {
    /// Brighter or darker.
    Brightness(f32),
    /// Farther from the mean, or nearer.
    Contrast(f32),
    /// Farther from gray, or nearer.
    Saturation(f32),
    /// Turns the hue, in turns.
    Hue(f32),
}

/// What is done to make one view.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewParams {
    /// The part of the image that is resized to the view.
    pub crop: CropBox,
    /// Mirrored left and right?
    pub flip: bool,
    /// Steps of colour jitter in their order, if it is done at all.
    pub jitter: Option<[JitterStep; 4]>,
    /// Made gray?
    pub grayscale: bool,
    /// Standard deviation of the blur in pixels, if it is done.
    pub blur: Option<f32>,
    /// Solarized?
    pub solarize: bool,
}

impl ViewParams {
    /// Draws the parameters of one view of a `width` × `height` image.
    pub fn draw(recipe: &ViewRecipe, width: u32, height: u32, key: ViewKey) -> Self {
        let view = key.view as usize;
        let jitter = key.happens(Draw::Jitter, recipe.jitter_p);
        let blur = key.happens(Draw::Blur, recipe.blur_p[view]);
        Self {
            crop: draw_crop(recipe, width, height, key.key),
            flip: key.happens(Draw::Flip, recipe.flip_p),
            jitter: jitter.then(|| draw_jitter(recipe, key)),
            grayscale: key.happens(Draw::Gray, recipe.gray_p),
            blur: blur.then(|| narrow(key.between(Draw::BlurSigma, recipe.blur_sigma))),
            solarize: key.happens(Draw::Solarize, recipe.solarize_p[view]),
        }
    }
}

/// ```text
/// area = S·U(scale),  ratio = exp(U(ln ratio)),  w = √(area·ratio),  h = √(area/ratio)
/// ```
///
/// rounded to whole pixels, anywhere in the image; ten tries, then the largest
/// centred crop whose ratio is allowed.
///
/// Source: `RandomResizedCrop.get_params` in torchvision.
fn draw_crop(recipe: &ViewRecipe, width: u32, height: u32, key: Key) -> CropBox {
    let area = f64::from(width) * f64::from(height);
    let [low, high] = recipe.ratio.map(f64::ln);
    for attempt in 0..CROP_TRIES {
        let draw = Draw::Crop as u64 + 4 * attempt;
        let crop_area = area * key.between(draw, recipe.scale[0], recipe.scale[1]);
        let ratio = key.between(draw + 1, low, high).exp();
        let crop_width = pixels((crop_area * ratio).sqrt());
        let crop_height = pixels((crop_area / ratio).sqrt());
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            return CropBox {
                left: offset(key, draw + 2, width - crop_width),
                top: offset(key, draw + 3, height - crop_height),
                width: crop_width,
                height: crop_height,
            };
        }
    }
    centre_crop(recipe, width, height)
}

fn centre_crop(recipe: &ViewRecipe, width: u32, height: u32) -> CropBox {
    let ratio = f64::from(width) / f64::from(height);
    let [low, high] = recipe.ratio;
    let crop_width =
        if ratio > high { pixels(f64::from(height) * high).clamp(1, width) } else { width };
    let crop_height =
        if ratio < low { pixels(f64::from(width) / low).clamp(1, height) } else { height };
    CropBox {
        left: (width - crop_width) / 2,
        top: (height - crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

fn draw_jitter(recipe: &ViewRecipe, key: ViewKey) -> [JitterStep; 4] {
    let factor = |draw, strength: f64| {
        narrow(key.between(draw, [(1.0 - strength).max(0.0), 1.0 + strength]))
    };
    let mut steps = [
        JitterStep::Brightness(factor(Draw::Brightness, recipe.brightness)),
        JitterStep::Contrast(factor(Draw::Contrast, recipe.contrast)),
        JitterStep::Saturation(factor(Draw::Saturation, recipe.saturation)),
        JitterStep::Hue(narrow(key.between(Draw::Hue, [-recipe.hue, recipe.hue]))),
    ];
    keyed::shuffle(&mut steps, key.key.derive(Purpose::Jitter, 0));
    steps
}

fn offset(key: Key, draw: u64, room: u32) -> u32 {
    u32::try_from(key.below(draw, u64::from(room) + 1)).expect("at most the room, a u32")
}

/// Rounds half to even, as Python does.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sides are positive, and the cast saturates"
)]
fn pixels(side: f64) -> u32 {
    side.round_ties_even() as u32
}

#[expect(clippy::cast_possible_truncation, reason = "factors near 1 and a few pixels of blur")]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn is_strength(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// Is `low` < first ≤ second ≤ `high`?
fn is_range([first, second]: [f64; 2], low: f64, high: f64) -> bool {
    low < first && first <= second && second <= high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(sample: u64, view: View) -> ViewKey {
        ViewKey::new(11, 2, SampleId(sample), view)
    }

    #[test]
    fn the_draws_are_pinned() {
        // A change of these numbers changes every run.
        let params = ViewParams::draw(&ViewRecipe::imagenet(224), 500, 375, key(3, View::Two));
        assert_eq!(params.crop, CropBox { left: 206, top: 43, width: 256, height: 323 });
        assert_eq!(
            format!("{:.4?}", params.jitter.unwrap()),
            "[Contrast(0.9939), Saturation(0.9027), Brightness(1.3404), Hue(0.0122)]",
        );
        assert_eq!((params.flip, params.grayscale, params.solarize), (true, false, true));
        assert_eq!(params.blur, None);
    }

    #[test]
    fn events_happen_as_often_as_the_recipe_says() {
        let recipe = ViewRecipe::imagenet(224);
        let count = |view, happens: fn(&ViewParams) -> bool| {
            (0..10_000)
                .map(|sample| ViewParams::draw(&recipe, 500, 375, key(sample, view)))
                .filter(happens)
                .count()
        };
        for (view, blurred, solarized) in [(View::One, 10_000, 0), (View::Two, 1_000, 2_000)] {
            let near = |found: usize, expected: usize| found.abs_diff(expected) <= 130;
            assert!(near(count(view, |p| p.flip), 5_000));
            assert!(near(count(view, |p| p.jitter.is_some()), 8_000));
            assert!(near(count(view, |p| p.grayscale), 2_000));
            assert!(near(count(view, |p| p.blur.is_some()), blurred));
            assert!(near(count(view, |p| p.solarize), solarized));
        }
    }

    #[test]
    fn crops_cover_the_area_and_the_ratio_evenly() {
        let recipe = ViewRecipe::imagenet(224);
        let (mut area, mut log_ratio) = (0.0_f64, 0.0_f64);
        for sample in 0..10_000 {
            let CropBox { width, height, .. } =
                ViewParams::draw(&recipe, 400, 400, key(sample, View::One)).crop;
            area += f64::from(width * height) / 160_000.0 / 10_000.0;
            log_ratio += (f64::from(width) / f64::from(height)).ln() / 10_000.0;
        }
        // 0.48 in a long run of torchvision's formula: 0.54, less the crops that do not fit.
        assert!((0.47..0.49).contains(&area), "{area}");
        assert!(log_ratio.abs() < 0.01, "{log_ratio}");
    }

    #[test]
    fn an_image_too_long_for_any_crop_gives_its_centre() {
        let recipe = ViewRecipe { scale: [1.0, 1.0], ..ViewRecipe::imagenet(224) };
        let wide = ViewParams::draw(&recipe, 1_000, 10, key(0, View::One)).crop;
        assert_eq!(wide, CropBox { left: 493, top: 0, width: 13, height: 10 });
        let high = ViewParams::draw(&recipe, 10, 1_000, key(0, View::One)).crop;
        assert_eq!(high, CropBox { left: 0, top: 493, width: 10, height: 13 });
    }

    #[test]
    fn switching_one_step_off_changes_no_other_draw() {
        let recipe = ViewRecipe::imagenet(224);
        let without = ViewRecipe { jitter_p: 0.0, ..recipe.clone() };
        for sample in 0..100 {
            let all = ViewParams::draw(&recipe, 500, 375, key(sample, View::One));
            let fewer = ViewParams::draw(&without, 500, 375, key(sample, View::One));
            assert_eq!(fewer, ViewParams { jitter: None, ..all });
        }
    }

    #[test]
    fn the_kernel_is_a_tenth_of_the_size_made_odd() {
        let kernels = [224, 96, 32, 28, 1].map(|size| ViewRecipe::imagenet(size).blur_kernel);
        assert_eq!(kernels, [23, 9, 3, 3, 1]);
    }

    #[test]
    fn a_recipe_that_cannot_work_names_the_field() {
        let good = ViewRecipe::imagenet(28);
        assert!(good.check().is_ok());
        let cases = [
            (ViewRecipe { scale: [0.9, 0.1], ..good.clone() }, "`scale` must be two rising"),
            (ViewRecipe { flip_p: 1.5, ..good.clone() }, "`flip_p` must be in 0..=1"),
            (ViewRecipe { gray_p: f64::NAN, ..good.clone() }, "`gray_p` must be in 0..=1"),
            (ViewRecipe { blur_kernel: 4, ..good.clone() }, "`blur_kernel` must be odd"),
            (ViewRecipe { blur_kernel: 57, ..good.clone() }, "`blur_kernel` must be odd"),
            (ViewRecipe { std: [0.2, 0.0, 0.2], ..good.clone() }, "`std` must be positive"),
        ];
        for (recipe, start) in cases {
            let error = recipe.check().unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_crop_lies_in_the_image(width in 1_u32..70_000, height in 1_u32..70_000, sample: u64) {
            let recipe = ViewRecipe::imagenet(224);
            let crop = ViewParams::draw(&recipe, width, height, key(sample, View::One)).crop;
            prop_assert!(crop.width >= 1 && crop.left + crop.width <= width);
            prop_assert!(crop.height >= 1 && crop.top + crop.height <= height);
        }
    }
}
