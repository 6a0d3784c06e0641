//! Colour, in one pass over float planes: conversion to RGB, jitter, grayscale, solarize, normalize.
//!
//! Values are in 0..=1 and clipped after each step. There are two forms of the
//! steps of jitter: torchvision's, and that of the paper's authors.
//!
//! | step | torchvision | reference |
//! |---|---|---|
//! | brightness f | f·x | x + (f − 1) |
//! | contrast f | f·x + (1 − f)·mean luma of the image | f·x + (1 − f)·mean of the channel |
//! | saturation f | f·x + (1 − f)·luma of the pixel | S of HSV times f, at most 1 |
//! | hue h | H of HSV turned by h | the same |
//!
//! Only contrast has to know the whole image: the pass is cut in two before it.
//! Each pixel has a lane of its own in every loop, so that results depend
//! neither on the width of the machine's vectors nor on anything around them.
//!
//! Sources: `_functional_tensor.py` in torchvision, the float branch;
//! `augmentations.py` in the authors' code.

#![expect(
    clippy::inline_always,
    reason = "code must become part of the loop that is compiled for wide vectors"
)]

use lockstep_jpeg::Colour;

use crate::planes::{LANES, Lanes, Planes};
use crate::view::{JitterForm, JitterStep, ViewParams};
use crate::wide::wide;

/// Weights of R, G, B in luma (ITU-R 601, rounded as torchvision rounds them).
const LUMA: [f32; 3] = [0.2989, 0.587, 0.114];

/// Chunks whose sums are in f32 before they go on in f64.
const BLOCK: usize = 64;

/// What becomes of a value in the end: (f(x) − mean)/std, where f is the identity
/// or solarizing, x < ½ ? x : 1 − x.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    solarize: bool,
    factor: [f32; 3],
    shift: [f32; 3],
}

impl Finish {
    pub(crate) fn new(solarize: bool, mean: [f32; 3], std: [f32; 3]) -> Self {
        let factor = std.map(|std| 1.0 / std);
        let shift = std::array::from_fn(|c| -mean[c] / std[c]);
        Self { solarize, factor, shift }
    }

    /// Writes pixels side by side; there may be fewer in `out`.
    #[inline(always)]
    pub(crate) fn write(&self, mut pixels: [Lanes; 3], out: &mut [[f32; 3]]) {
        for (c, lanes) in pixels.iter_mut().enumerate() {
            if self.solarize {
                each(lanes, |x| if x < 0.5 { x } else { 1.0 - x });
            }
            each(lanes, |x| x.mul_add(self.factor[c], self.shift[c]));
        }
        let [r, g, b] = &pixels;
        match out.as_chunks_mut::<LANES>() {
            ([out], _) => {
                for i in 0..LANES {
                    out[i] = [r[i], g[i], b[i]];
                }
            }
            (_, out) => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = [r[i], g[i], b[i]];
                }
            }
        }
    }
}

/// Makes the planes RGB and does the jitter and the grayscale of `params`.
pub(crate) fn jitter(planes: &mut Planes, params: &ViewParams, form: JitterForm) {
    let tones = up_to_last_contrast(planes, params, form);
    wide(
        #[inline(always)]
        || {
            pass(
                planes,
                &tones,
                #[inline(always)]
                |_, stored, values| store(stored, &values),
            )
        },
    );
    planes.set_colour(Colour::Rgb);
}

/// As [`jitter`], but writes interleaved pixels; the planes are anything then.
pub(crate) fn jitter_into(
    planes: &mut Planes,
    params: &ViewParams,
    form: JitterForm,
    finish: Finish,
    out: &mut [[f32; 3]],
) {
    let tones = up_to_last_contrast(planes, params, form);
    write(planes, &tones, finish, out);
}

/// Writes the planes as interleaved pixels without any step before the last.
pub(crate) fn finish(planes: &mut Planes, finish: Finish, out: &mut [[f32; 3]]) {
    write(planes, &[None; 5], finish, out);
}

/// Writes the planes as interleaved pixels of 8 bits, rounded.
pub(crate) fn round(planes: &mut Planes, out: &mut [[u8; 3]]) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=255 in 0..=1")]
    let byte = |x: f32| (255.0 * x).round() as u8;
    pass(planes, &[None; 5], |pixels, _, [r, g, b]| {
        for (i, out) in out[pixels].iter_mut().enumerate() {
            *out = [r[i], g[i], b[i]].map(byte);
        }
    });
}

/// A step with all that it needs to know.
#[derive(Debug, Clone, Copy)]
enum Tone {
    /// factor·x + shift, per channel.
    Affine(f32, [f32; 3]),
    /// factor·x + (1 − factor)·luma.
    FromLuma(f32),
    /// Saturation in HSV times a factor.
    Saturation(f32),
    /// Hue in HSV moved, in sixths of a circle.
    Hue(f32),
}

/// At most four steps of jitter, and grayscale.
type Tones = [Option<Tone>; 5];

/// Does the steps before the last contrast, and gives those that are left.
fn up_to_last_contrast(planes: &mut Planes, params: &ViewParams, form: JitterForm) -> Tones {
    let steps = params.jitter.as_ref().map_or(&[][..], |steps| steps);
    let (mut done, mut means) = (0, [0.0; 3]);
    let is_contrast = |at: &usize| matches!(steps[*at], JitterStep::Contrast(_));
    for at in (0..steps.len()).filter(is_contrast) {
        let before = tones(&steps[done..at], form, means);
        means = wide(
            #[inline(always)]
            || measuring_pass(planes, &before),
        );
        planes.set_colour(Colour::Rgb);
        done = at;
    }
    let mut left = tones(&steps[done..], form, means);
    left[4] = params.grayscale.then_some(Tone::FromLuma(0.0));
    left
}

/// `means` are those of the channels before the first of `steps`.
fn tones(steps: &[JitterStep], form: JitterForm, means: [f32; 3]) -> Tones {
    let tone = |step: &JitterStep| match (*step, form) {
        (JitterStep::Brightness(factor), JitterForm::Torchvision) => Tone::Affine(factor, [0.0; 3]),
        (JitterStep::Brightness(factor), JitterForm::Reference) => {
            Tone::Affine(1.0, [factor - 1.0; 3])
        }
        (JitterStep::Contrast(factor), JitterForm::Torchvision) => {
            Tone::Affine(factor, [(1.0 - factor) * luma(means); 3])
        }
        (JitterStep::Contrast(factor), JitterForm::Reference) => {
            Tone::Affine(factor, means.map(|mean| (1.0 - factor) * mean))
        }
        (JitterStep::Saturation(factor), JitterForm::Torchvision) => Tone::FromLuma(factor),
        (JitterStep::Saturation(factor), JitterForm::Reference) => Tone::Saturation(factor),
        (JitterStep::Hue(turns), _) => Tone::Hue(6.0 * turns),
    };
    std::array::from_fn(|at| steps.get(at).map(tone))
}

fn write(planes: &mut Planes, tones: &Tones, finish: Finish, out: &mut [[f32; 3]]) {
    wide(
        #[inline(always)]
        || {
            pass(
                planes,
                tones,
                #[inline(always)]
                |pixels, _, values| finish.write(values, &mut out[pixels]),
            );
        },
    );
}

/// `sink(pixels, their places, their values)` for all chunks.
#[inline(always)]
fn pass(
    planes: &mut Planes,
    tones: &Tones,
    mut sink: impl FnMut(std::ops::Range<usize>, [&mut Lanes; 3], [Lanes; 3]),
) {
    let (colour, pixels) = (planes.colour(), planes.pixels());
    let [first, second, third] = planes.planes_mut();
    let chunks = first.iter_mut().zip(second).zip(third).enumerate();
    for (index, ((first, second), third)) in chunks {
        let mut values = load(colour, first, second, third);
        for tone in tones.iter().flatten() {
            tone.apply(&mut values);
        }
        let begin = index * LANES;
        sink(begin..pixels.min(begin + LANES), [first, second, third], values);
    }
}

/// Stores what the tones make, and gives the mean of each channel.
///
/// Summed in a fixed order: by lane over [`BLOCK`] chunks, then in f64.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "the number of pixels is far below 2^52")]
#[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values fits one")]
fn measuring_pass(planes: &mut Planes, tones: &Tones) -> [f32; 3] {
    let pixels = planes.pixels();
    let (mut totals, mut partial) = ([0.0_f64; 3], [[0.0; LANES]; 3]);
    pass(
        planes,
        tones,
        #[inline(always)]
        |range, stored, mut values| {
            store(stored, &values);
            for (partial, values) in partial.iter_mut().zip(&mut values) {
                values[range.len()..].fill(0.0);
                for i in 0..LANES {
                    partial[i] += values[i];
                }
            }
            if range.end == pixels || range.end % (BLOCK * LANES) == 0 {
                for (total, partial) in totals.iter_mut().zip(&mut partial) {
                    *total += partial.iter().map(|sum| f64::from(*sum)).sum::<f64>();
                    *partial = [0.0; LANES];
                }
            }
        },
    );
    totals.map(|total| (total / pixels as f64) as f32)
}

/// R, G and B of some pixels.
///
/// ```text
/// R = Y + 1.402·Cr,  G = Y − 0.344136·Cb − 0.714136·Cr,  B = Y + 1.772·Cb
/// ```
///
/// with Cb and Cr around 0 (JFIF 1.02).
#[inline(always)]
fn load(colour: Colour, first: &Lanes, second: &Lanes, third: &Lanes) -> [Lanes; 3] {
    let mut rgb = match colour {
        Colour::Gray => [*first; 3],
        Colour::Rgb => [*first, *second, *third],
        Colour::YCbCr => {
            let mut rgb = [[0.0; LANES]; 3];
            for i in 0..LANES {
                let (cb, cr) = (second[i] - 128.0 / 255.0, third[i] - 128.0 / 255.0);
                rgb[0][i] = cr.mul_add(1.402, first[i]);
                rgb[1][i] = cr.mul_add(-0.714_136, cb.mul_add(-0.344_136, first[i]));
                rgb[2][i] = cb.mul_add(1.772, first[i]);
            }
            rgb
        }
    };
    rgb.iter_mut().for_each(|channel| each(channel, clipped));
    rgb
}

#[inline(always)]
fn store(places: [&mut Lanes; 3], values: &[Lanes; 3]) {
    for (place, values) in places.into_iter().zip(values) {
        *place = *values;
    }
}

impl Tone {
    #[inline(always)]
    fn apply(self, pixels: &mut [Lanes; 3]) {
        match self {
            Self::Affine(factor, shift) => {
                for (channel, shift) in pixels.iter_mut().zip(shift) {
                    each(channel, |x| clipped(x.mul_add(factor, shift)));
                }
            }
            Self::FromLuma(factor) => each_pixel(pixels, factor, move_from_luma),
            Self::Saturation(factor) => each_pixel(pixels, factor, saturate),
            Self::Hue(sixths) => each_pixel(pixels, sixths, turn_hue),
        }
    }
}

#[inline(always)]
fn each(channel: &mut Lanes, change: impl Fn(f32) -> f32) {
    for value in channel {
        *value = change(*value);
    }
}

#[inline(always)]
fn each_pixel([r, g, b]: &mut [Lanes; 3], amount: f32, change: impl Fn([f32; 3], f32) -> [f32; 3]) {
    for i in 0..LANES {
        [r[i], g[i], b[i]] = change([r[i], g[i], b[i]], amount);
    }
}

#[inline(always)]
fn luma([r, g, b]: [f32; 3]) -> f32 {
    b.mul_add(LUMA[2], g.mul_add(LUMA[1], r * LUMA[0]))
}

/// Into 0..=1.
#[inline(always)]
fn clipped(x: f32) -> f32 {
    x.clamp(0.0, 1.0)
}

/// The larger; unlike [`f32::max`] without a rule for NaN, so one instruction.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// V and C = V·S of HSV.
#[inline(always)]
fn value_and_chroma([r, g, b]: [f32; 3]) -> (f32, f32) {
    let value = larger(larger(r, g), b);
    (value, value - smaller(smaller(r, g), b))
}

/// Each channel goes on its way from the luma of the pixel, `factor` times as far.
#[inline(always)]
fn move_from_luma(pixel: [f32; 3], factor: f32) -> [f32; 3] {
    let shift = (1.0 - factor) * luma(pixel);
    pixel.map(|x| clipped(x.mul_add(factor, shift)))
}

/// S times `factor`, at most 1; hue and value stay: each channel keeps its part of the way from V.
#[inline(always)]
fn saturate(pixel: [f32; 3], factor: f32) -> [f32; 3] {
    let (value, chroma) = value_and_chroma(pixel);
    let most = if chroma > 0.0 { value / chroma } else { 1.0 };
    let factor = smaller(factor, most);
    pixel.map(|x| clipped(value - (value - x) * factor))
}

/// Hue, in sixths of a circle, moves by `sixths`; value and chroma stay.
///
/// The way back is v − c·clip(min(k, 4 − k)) with k = (n + hue) mod 6 and n = 5, 3, 1,
/// which equals torchvision's table of six cases and has no branch.
#[inline(always)]
#[expect(clippy::float_cmp, reason = "the maximum is one of the three, bit for bit")]
fn turn_hue([r, g, b]: [f32; 3], sixths: f32) -> [f32; 3] {
    let (value, chroma) = value_and_chroma([r, g, b]);
    let inverse = if chroma > 0.0 { 1.0 / chroma } else { 0.0 };
    let (way, from) = if value == r {
        (g - b, 0.0)
    } else if value == g {
        (b - r, 2.0)
    } else {
        (r - g, 4.0)
    };
    let hue = wrap(way.mul_add(inverse, from) + sixths);
    [5.0, 3.0, 1.0].map(|offset| {
        let k = wrap(offset + hue);
        value - chroma * clipped(smaller(k, 4.0 - k))
    })
}

/// Into 0..6, from at most one turn away.
#[inline(always)]
fn wrap(sixths: f32) -> f32 {
    let raised = if sixths < 0.0 { sixths + 6.0 } else { sixths };
    if raised >= 6.0 { raised - 6.0 } else { raised }
}
