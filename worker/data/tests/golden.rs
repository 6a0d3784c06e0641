//! Every transform against what torchvision and Pillow make of the same image.
//!
//! The values are in `golden.json`, made by `golden.py`. Tolerances are near the
//! measured differences, which stand beside them; 1/255 is one step of 8 bits.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of the test functions")]

use lockstep_data::{
    Augmenter, CropBox, Decoder, EvalConfig, JitterStep, PlanarImage, ViewParams, ViewRecipe,
    eval_view,
};
use serde::Deserialize;

/// Resizing rounds to 8 bits, so a difference is a whole step: measured, one value in
/// 400 against Pillow, none against torchvision but for one case of the evaluation view.
const ONE_STEP: f32 = 1.0 / 255.0 + 1e-6;
const RESIZE_MEAN: f32 = 0.05 / 255.0;
/// Colour and blur are the same formulas in the same precision; measured: 1.1e-6,
/// of which 0.5e-6 is the rounding of the file.
const FLOAT: f32 = 2e-6;

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

#[derive(Deserialize)]
struct Case {
    crop: [u32; 4],
    steps: Vec<(String, f32)>,
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

    fn image(&self) -> PlanarImage {
        let mut image = PlanarImage::default();
        Decoder::default().open(&self.png()).unwrap().decode_all(&mut image).unwrap();
        image
    }

    /// Our view, in 0..=1.
    fn view(&self, crop: [u32; 4], steps: &[(String, f32)]) -> Vec<f32> {
        let (params, blur_kernel) = params(crop, steps);
        let recipe = ViewRecipe {
            blur_kernel,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..ViewRecipe::imagenet(self.size)
        };
        let mut out = vec![0.0; recipe.view_len()];
        Augmenter::default().apply(&self.image(), &params, &recipe, &mut out);
        out
    }
}

/// The parameters that do `steps`, and the taps of the blur.
fn params([left, top, width, height]: [u32; 4], steps: &[(String, f32)]) -> (ViewParams, u32) {
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
            "blur5" | "blur11" => {
                params.blur = Some(*argument);
                taps = if name == "blur5" { 5 } else { 11 };
            }
            "solarize" => params.solarize = true,
            other => panic!("golden.json has a step `{other}`"),
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
fn resizing_agrees_with_torchvision_and_pillow_to_one_step() {
    let golden = Golden::load();
    let torchvision = golden.cases.iter().filter(|case| case.steps.is_empty());
    let torchvision = torchvision.map(|case| (case.crop, &case.values, 1e-6));
    let pillow = golden.pillow.iter().map(|case| (case.crop, &case.values, 1.0 / 255.0));
    for (crop, values, unit) in torchvision.chain(pillow) {
        let (largest, mean) = difference(&golden.view(crop, &[]), values, unit);
        println!("{crop:?}: largest {largest}, mean {mean}");
        assert!(largest <= ONE_STEP, "{crop:?}: {largest}");
        assert!(mean <= RESIZE_MEAN, "{crop:?}: {mean}");
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
fn the_evaluation_view_agrees_with_torchvision_to_one_step() {
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
        let (largest, mean) = difference(&view, &case.values, 1e-6);
        println!("short side {}: largest {largest}, mean {mean}", case.short);
        assert!(largest <= ONE_STEP, "short side {}: {largest}", case.short);
        assert!(mean <= RESIZE_MEAN, "short side {}: {mean}", case.short);
    }
}
