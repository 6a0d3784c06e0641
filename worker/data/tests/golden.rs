//! Every transform against what torchvision and Pillow make of the same image.
//!
//! The values are in `golden.json` and `photos/`, made by `tests/reference/golden_views.py`, which
//! says what they are. Tolerances are near the measured differences, which stand beside them;
//! 1/255 is one step of 8 bits.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use std::path::Path;

use lockstep_data::{
    Augmenter, CropBox, Decoder, EvalConfig, JitterStep, PlanarImage, ViewParams, ViewRecipe,
    eval_view,
};
use serde::Deserialize;

/// The same formulas in the same precision; measured: 1.2e-6, of which 0.5e-6 is the
/// rounding of the file.
const FLOAT: f32 = 2e-6;
/// Here torchvision has the positions in the whole image in single precision; measured: 2.0e-6.
const EVALUATION: f32 = 3e-6;

/// In steps of 8 bits.
struct Limit {
    mean: f32,
    largest: f32,
}

/// Against Pillow, which rounds to 8 bits and clips between its two passes too: that shows
/// where the cubic overshoots at the picture's hard edge. Measured: mean 0.44, largest 15.3.
const EIGHT_BITS: Limit = Limit { mean: 0.5, largest: 16.0 };
/// From JPEG bytes, against 8 bits in every stage. Measured: mean 0.64, largest 10.0, at the
/// edge of the disc.
const PHOTO_STEP: Limit = Limit { mean: 0.7, largest: 11.0 };
/// Measured: mean 0.49, largest 6.2.
const PHOTO_CHAIN: Limit = Limit { mean: 0.6, largest: 7.0 };

#[derive(Deserialize)]
struct Golden {
    width: u32,
    height: u32,
    size: u32,
    pixels: Vec<u8>,
    cases: Vec<Case>,
    pillow: Vec<Pillow>,
    evaluation: Vec<Evaluation>,
}

type Step = (String, f32);

#[derive(Deserialize)]
struct Case {
    crop: [u32; 4],
    steps: Vec<Step>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Pillow {
    crop: [u32; 4],
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Evaluation {
    short: u32,
    values: Vec<f32>,
}

impl Golden {
    fn load() -> Self {
        serde_json::from_str(include_str!("golden.json")).unwrap()
    }

    fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&self.pixels).unwrap();
        bytes
    }

    /// Our view, in 0..=1.
    fn view(&self, crop: [u32; 4], steps: &[Step]) -> Vec<f32> {
        viewed(&self.png(), self.size, crop, steps)
    }
}

/// What training sees.
#[derive(Deserialize)]
struct Photos {
    size: u32,
    cases: Vec<PhotoCase>,
    evaluation: Vec<PhotoEvaluation>,
}

#[derive(Deserialize)]
struct PhotoCase {
    file: String,
    crop: [u32; 4],
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct PhotoEvaluation {
    file: String,
    short: u32,
}

impl Photos {
    fn load() -> Self {
        serde_json::from_slice(&photo_file("views.json")).unwrap()
    }

    /// The values of the cases and then of the evaluation views, which belong together in order.
    fn values(&self) -> Vec<Vec<f32>> {
        let bytes = photo_file("views.bin");
        let value = |pair: &[u8; 2]| f32::from(u16::from_le_bytes(*pair)) / 8192.0 - 4.0;
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(value).collect();
        let view_len = ViewRecipe::imagenet(self.size).view_len();
        assert_eq!(values.len(), (self.cases.len() + self.evaluation.len()) * view_len);
        values.chunks(view_len).map(<[f32]>::to_vec).collect()
    }
}

fn photo_file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos");
    std::fs::read(folder.join(name)).unwrap()
}

/// Our view: in 0..=1, or normalized where that is the last step.
fn viewed(bytes: &[u8], size: u32, crop: [u32; 4], steps: &[Step]) -> Vec<f32> {
    let normalized = steps.iter().any(|(name, _)| name == "normalize");
    let (params, blur_kernel) = params(crop, steps);
    let mut recipe = ViewRecipe { blur_kernel, ..ViewRecipe::imagenet(size) };
    if !normalized {
        (recipe.mean, recipe.std) = ([0.0; 3], [1.0; 3]);
    }
    let (mut image, mut out) = (PlanarImage::default(), vec![0.0; recipe.view_len()]);
    Decoder::default().open(bytes).unwrap().decode(&[params.crop], &mut image).unwrap();
    Augmenter::default().apply(&image, &params, &recipe, &mut out);
    out
}

/// The parameters that do `steps`, and the taps of the blur.
fn params([left, top, width, height]: [u32; 4], steps: &[Step]) -> (ViewParams, u32) {
    let mut params = ViewParams {
        crop: CropBox { left, top, width, height },
        flip: false,
        jitter: None,
        grayscale: false,
        blur: None,
        solarize: false,
    };
    let (mut jitter, mut taps) = (Vec::new(), 5);
    for (name, argument) in steps {
        match name.as_str() {
            "flip" => params.flip = true,
            "brightness" => jitter.push(JitterStep::Brightness(*argument)),
            "contrast" => jitter.push(JitterStep::Contrast(*argument)),
            "saturation" => jitter.push(JitterStep::Saturation(*argument)),
            "hue" => jitter.push(JitterStep::Hue(*argument)),
            "grayscale" => params.grayscale = true,
            "solarize" => params.solarize = true,
            "normalize" => {}
            blur => {
                params.blur = Some(*argument);
                taps = blur.strip_prefix("blur").and_then(|taps| taps.parse().ok()).unwrap();
            }
        }
    }
    if !jitter.is_empty() {
        // A factor of 1 changes nothing, so it fills the places of the absent steps.
        jitter.resize(4, JitterStep::Brightness(1.0));
        params.jitter = Some(jitter.try_into().unwrap());
    }
    (params, taps)
}

/// Largest and mean absolute difference; `unit` is what a golden 1 stands for.
fn difference(ours: &[f32], golden: &[f32], unit: f32) -> (f32, f32) {
    assert_eq!(ours.len(), golden.len());
    let differences: Vec<f32> =
        ours.iter().zip(golden).map(|(a, b)| (a - b * unit).abs()).collect();
    let sum: f32 = differences.iter().sum();
    let count = f32::from(u16::try_from(differences.len()).unwrap());
    (differences.iter().fold(0.0, |a, b| a.max(*b)), sum / count)
}

#[test]
fn resizing_agrees_with_torchvision_on_floats_and_nearly_with_pillow_on_bytes() {
    let golden = Golden::load();
    for case in golden.cases.iter().filter(|case| case.steps.is_empty()) {
        let (largest, _) = difference(&golden.view(case.crop, &[]), &case.values, 1e-6);
        println!("{:?}: largest {largest}", case.crop);
        assert!(largest <= FLOAT, "{:?}: {largest}", case.crop);
    }
    for case in &golden.pillow {
        let ours: Vec<_> = golden.view(case.crop, &[]).iter().map(|value| value * 255.0).collect();
        let (largest, mean) = difference(&ours, &case.values, 1.0);
        println!("{:?}: largest {largest:.2}/255, mean {mean:.3}/255", case.crop);
        assert!(largest <= EIGHT_BITS.largest, "{:?}: {largest}", case.crop);
        assert!(mean <= EIGHT_BITS.mean, "{:?}: {mean}", case.crop);
    }
}

#[test]
fn every_colour_step_and_the_blur_agree_with_torchvision() {
    let golden = Golden::load();
    for case in golden.cases.iter().filter(|case| case.steps.len() == 1) {
        let (largest, _) = difference(&golden.view(case.crop, &case.steps), &case.values, 1e-6);
        println!("{:?}: largest {largest}", case.steps);
        assert!(largest <= FLOAT, "{:?}: {largest}", case.steps);
    }
}

#[test]
fn the_whole_chain_agrees_with_torchvision() {
    let golden = Golden::load();
    for case in golden.cases.iter().filter(|case| case.steps.len() > 1) {
        let (largest, _) = difference(&golden.view(case.crop, &case.steps), &case.values, 1e-6);
        println!("{:?}: largest {largest}", case.steps);
        assert!(largest <= FLOAT, "{:?}: {largest}", case.steps);
    }
}

#[test]
fn the_evaluation_view_agrees_with_torchvision() {
    let golden = Golden::load();
    let bytes = golden.png();
    for case in &golden.evaluation {
        let config = EvalConfig {
            size: golden.size,
            resize_short_side: case.short,
            mean: [0.0; 3],
            std: [1.0; 3],
            batch: 1,
            threads: 1,
        };
        let view = eval_view(&bytes, &config).unwrap();
        let (largest, _) = difference(&view, &case.values, 1e-6);
        println!("short side {}: largest {largest}", case.short);
        assert!(largest <= EVALUATION, "short side {}: {largest}", case.short);
    }
}

/// Difference of views of photographs in steps of 8 bits: largest and mean.
fn photo_difference(steps: &[Step], ours: &[f32], golden: &[f32]) -> (f32, f32) {
    let normalized = steps.last().is_some_and(|(name, _)| name == "normalize");
    // The channels' deviations differ little; the mean one turns normalized values back.
    let step = if normalized { (0.229 + 0.224 + 0.225) / 3.0 } else { 1.0 } * 255.0;
    let (largest, mean) = difference(ours, golden, 1.0);
    (largest * step, mean * step)
}

#[test]
fn views_of_jpeg_bytes_agree_with_torchvision_on_what_pillow_decodes() {
    let photos = Photos::load();
    for (case, golden) in photos.cases.iter().zip(photos.values()) {
        let ours = viewed(&photo_file(&case.file), photos.size, case.crop, &case.steps);
        let (largest, mean) = photo_difference(&case.steps, &ours, &golden);
        println!("{} {:?}: largest {largest:.3}/255, mean {mean:.4}/255", case.file, case.steps);
        let limit = if case.steps.len() > 1 { PHOTO_CHAIN } else { PHOTO_STEP };
        assert!(mean <= limit.mean && largest <= limit.largest, "{} {:?}", case.file, case.steps);
    }
}

#[test]
fn evaluation_views_of_jpeg_bytes_agree_with_torchvision_on_what_pillow_decodes() {
    let photos = Photos::load();
    let values = photos.values().into_iter().skip(photos.cases.len());
    for (case, golden) in photos.evaluation.iter().zip(values) {
        let config = EvalConfig {
            size: photos.size,
            resize_short_side: case.short,
            mean: ViewRecipe::imagenet(1).mean,
            std: ViewRecipe::imagenet(1).std,
            batch: 1,
            threads: 1,
        };
        let ours = eval_view(&photo_file(&case.file), &config).unwrap();
        let normalized = [("normalize".to_owned(), 0.0)];
        let (largest, mean) = photo_difference(&normalized, &ours, &golden);
        println!("{}: largest {largest:.3}/255, mean {mean:.4}/255", case.file);
        assert!(mean <= PHOTO_STEP.mean && largest <= PHOTO_STEP.largest, "{}", case.file);
    }
}
