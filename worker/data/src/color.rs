//! Colour, in one pass over float planes: conversion to RGB, jitter, grayscale.
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
use pulp::{Arch, Simd, WithSimd};

use crate::planes::{LANES, Lanes, Planes};
use crate::view::{JitterForm, JitterStep, ViewParams};

/// Weights of R, G, B in luma (ITU-R 601, rounded as torchvision rounds them).
const LUMA: [f32; 3] = [0.2989, 0.587, 0.114];

/// Chunks that one step after the other is done to, as they stay in the nearest cache: 24 KB. Their sums are in f32.
const BLOCK: usize = 64;

/// As many chunks of each channel, or fewer at the end.
type Block<'a> = [&'a mut [Lanes]; 3];

/// R, G and B of as many pixels as a vector holds.
type Pixels<S> = [<S as Simd>::f32s; 3];

/// Makes the planes RGB and does the jitter and the grayscale of `params`.
pub(crate) fn jitter(planes: &mut Planes, params: &ViewParams, form: JitterForm) {
    let steps = params.jitter.as_ref().map_or(&[][..], |steps| steps);
    let (mut done, mut means) = (0, [0.0; 3]);
    let is_contrast = |at: &usize| matches!(steps[*at], JitterStep::Contrast(_));
    for at in (0..steps.len()).filter(is_contrast) {
        let mut sums = Sums::default();
        pass(planes, &tones(&steps[done..at], form, means), Some(&mut sums));
        means = sums.means(planes.pixels());
        done = at;
    }
    let mut left = tones(&steps[done..], form, means);
    left[4] = params.grayscale.then_some(Tone::FromLuma(0.0));
    pass(planes, &left, None);
}

/// Makes the planes RGB.
pub(crate) fn convert(planes: &mut Planes) {
    pass(planes, &[None; 5], None);
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

/// `means` are those of the channels before the first of `steps`.
fn tones(steps: &[JitterStep], form: JitterForm, means: [f32; 3]) -> Tones {
    let tone = |step: &JitterStep| match (*step, form) {
        (JitterStep::Brightness(factor), JitterForm::Torchvision) => Tone::Affine(factor, [0.0; 3]),
        (JitterStep::Brightness(factor), JitterForm::Reference) => {
            Tone::Affine(1.0, [factor - 1.0; 3])
        }
        (JitterStep::Contrast(factor), JitterForm::Torchvision) => {
            Tone::Affine(factor, [(1.0 - factor) * luma_of(means); 3])
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

/// Makes the planes RGB and does `tones` to them; adds up what comes out, if asked to.
fn pass(planes: &mut Planes, tones: &Tones, sums: Option<&mut Sums>) {
    Arch::new().dispatch(Pass { colour: planes.colour(), planes, tones, sums });
}

struct Pass<'a> {
    colour: Colour,
    planes: &'a mut Planes,
    tones: &'a Tones,
    sums: Option<&'a mut Sums>,
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { colour, planes, tones, mut sums } = self;
        let pixels = planes.pixels();
        planes.set_colour(Colour::Rgb);
        let [first, second, third] = planes.planes_mut();
        let blocks = first.chunks_mut(BLOCK).zip(second.chunks_mut(BLOCK));
        for (index, ((first, second), third)) in blocks.zip(third.chunks_mut(BLOCK)).enumerate() {
            let mut block = [first, second, third];
            load(simd, colour, &mut block);
            for tone in tones.iter().flatten() {
                tone.apply(simd, &mut block);
            }
            if let Some(sums) = &mut sums {
                sums.add(simd, pixels - index * BLOCK * LANES, &block);
            }
        }
    }
}

/// The vectors of a block, from all channels at a time.
#[inline(always)]
fn vectors<'a, S: Simd>(
    _: S,
    [first, second, third]: &'a mut Block<'_>,
) -> impl Iterator<Item = ((&'a mut S::f32s, &'a mut S::f32s), &'a mut S::f32s)> {
    let r = S::as_mut_simd_f32s(first.as_flattened_mut()).0;
    let g = S::as_mut_simd_f32s(second.as_flattened_mut()).0;
    let b = S::as_mut_simd_f32s(third.as_flattened_mut()).0;
    r.iter_mut().zip(g).zip(b)
}

/// Sums of the channels, in a fixed order: by lane over a block, then in f64.
#[derive(Default)]
struct Sums {
    totals: [f64; 3],
}

impl Sums {
    /// Adds a block; the first `pixels` of it count, what fills it up does not.
    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, pixels: usize, block: &Block<'_>) {
        for (total, channel) in self.totals.iter_mut().zip(block) {
            let mut partial = [0.0; LANES];
            let whole = channel.len().min(pixels / LANES);
            for values in &channel[..whole] {
                let sums = S::as_mut_simd_f32s(&mut partial).0.iter_mut();
                for (sum, values) in sums.zip(S::as_simd_f32s(values).0) {
                    *sum = simd.add_f32s(*sum, *values);
                }
            }
            for values in &channel[whole..] {
                let pixels = &values[..pixels % LANES];
                partial.iter_mut().zip(pixels).for_each(|(sum, value)| *sum += value);
            }
            *total += partial.iter().map(|sum| f64::from(*sum)).sum::<f64>();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the number of pixels is far below 2^52")]
    #[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values fits one")]
    fn means(&self, pixels: usize) -> [f32; 3] {
        self.totals.map(|total| (total / pixels as f64) as f32)
    }
}

/// R, G and B of some pixels.
///
/// ```text
/// R = Y + 1.402·Cr,  G = Y − 0.344136·Cb − 0.714136·Cr,  B = Y + 1.772·Cb
/// ```
///
/// with Cb and Cr around 0 (JFIF 1.02).
#[inline(always)]
fn load<S: Simd>(simd: S, colour: Colour, block: &mut Block<'_>) {
    for ((first, second), third) in vectors(simd, block) {
        let (y, cb, cr) = (*first, *second, *third);
        let rgb = match colour {
            Colour::Gray => [y; 3],
            Colour::Rgb => [y, cb, cr],
            Colour::YCbCr => from_ycbcr(simd, [y, cb, cr]),
        };
        *first = clipped(simd, rgb[0]);
        *second = clipped(simd, rgb[1]);
        *third = clipped(simd, rgb[2]);
    }
}

#[inline(always)]
fn from_ycbcr<S: Simd>(simd: S, [y, cb, cr]: Pixels<S>) -> Pixels<S> {
    let middle = simd.splat_f32s(128.0 / 255.0);
    let (cb, cr) = (simd.sub_f32s(cb, middle), simd.sub_f32s(cr, middle));
    let green = simd.mul_add_f32s(cb, simd.splat_f32s(-0.344_136), y);
    [
        simd.mul_add_f32s(cr, simd.splat_f32s(1.402), y),
        simd.mul_add_f32s(cr, simd.splat_f32s(-0.714_136), green),
        simd.mul_add_f32s(cb, simd.splat_f32s(1.772), y),
    ]
}

// No closures from here on, not even `map` of arrays: the compiler may leave them outside of the
// function that is compiled for wide vectors.

impl Tone {
    /// One loop per tone: chosen once per block, its numbers stay in registers.
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, block: &mut Block<'_>) {
        match self {
            Self::Affine(factor, [r, g, b]) => {
                let shift = [simd.splat_f32s(r), simd.splat_f32s(g), simd.splat_f32s(b)];
                for ((r, g), b) in vectors(simd, block) {
                    [*r, *g, *b] = affine(simd, [*r, *g, *b], factor, shift);
                }
            }
            Self::FromLuma(factor) => {
                let rest = simd.splat_f32s(1.0 - factor);
                for ((r, g), b) in vectors(simd, block) {
                    let shift = simd.mul_f32s(rest, luma(simd, [*r, *g, *b]));
                    [*r, *g, *b] = affine(simd, [*r, *g, *b], factor, [shift; 3]);
                }
            }
            Self::Saturation(factor) => {
                for ((r, g), b) in vectors(simd, block) {
                    [*r, *g, *b] = saturate(simd, [*r, *g, *b], factor);
                }
            }
            Self::Hue(sixths) => {
                for ((r, g), b) in vectors(simd, block) {
                    [*r, *g, *b] = turn_hue(simd, [*r, *g, *b], sixths);
                }
            }
        }
    }
}

/// factor·x + shift.
#[inline(always)]
fn affine<S: Simd>(simd: S, mut pixels: Pixels<S>, factor: f32, shift: Pixels<S>) -> Pixels<S> {
    let factor = simd.splat_f32s(factor);
    for c in 0..3 {
        pixels[c] = clipped(simd, simd.mul_add_f32s(pixels[c], factor, shift[c]));
    }
    pixels
}

fn luma_of([r, g, b]: [f32; 3]) -> f32 {
    b.mul_add(LUMA[2], g.mul_add(LUMA[1], r * LUMA[0]))
}

#[inline(always)]
fn luma<S: Simd>(simd: S, [r, g, b]: Pixels<S>) -> S::f32s {
    let red = simd.mul_f32s(r, simd.splat_f32s(LUMA[0]));
    let two = simd.mul_add_f32s(g, simd.splat_f32s(LUMA[1]), red);
    simd.mul_add_f32s(b, simd.splat_f32s(LUMA[2]), two)
}

/// Into 0..=1.
#[inline(always)]
fn clipped<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.min_f32s(simd.max_f32s(x, simd.splat_f32s(0.0)), simd.splat_f32s(1.0))
}

/// V and C = V·S of HSV.
#[inline(always)]
fn value_and_chroma<S: Simd>(simd: S, [r, g, b]: Pixels<S>) -> (S::f32s, S::f32s) {
    let value = simd.max_f32s(simd.max_f32s(r, g), b);
    (value, simd.sub_f32s(value, simd.min_f32s(simd.min_f32s(r, g), b)))
}

/// S times `factor`, at most 1; hue and value stay: each channel keeps its part of the way from V.
#[inline(always)]
fn saturate<S: Simd>(simd: S, mut pixels: Pixels<S>, factor: f32) -> Pixels<S> {
    let (value, chroma) = value_and_chroma(simd, pixels);
    // Where there is no chroma there is no way to go either.
    let smallest = simd.splat_f32s(f32::MIN_POSITIVE);
    let most = simd.div_f32s(value, simd.max_f32s(chroma, smallest));
    let factor = simd.min_f32s(simd.splat_f32s(factor), most);
    for x in &mut pixels {
        let way = simd.mul_f32s(simd.sub_f32s(value, *x), factor);
        *x = clipped(simd, simd.sub_f32s(value, way));
    }
    pixels
}

/// Hue, in sixths of a circle, moves by `sixths`; value and chroma stay.
///
/// The way back is v − c·part, where the parts of red, green and blue are
/// clip(2 − |h − 3|), clip(|h − 2| − 1) and clip(|h − 4| − 1), which equals
/// torchvision's table of six cases and has no branch.
#[inline(always)]
fn turn_hue<S: Simd>(simd: S, [r, g, b]: Pixels<S>, sixths: f32) -> Pixels<S> {
    let (value, chroma) = value_and_chroma(simd, [r, g, b]);
    let some = simd.greater_than_f32s(chroma, simd.splat_f32s(0.0));
    let inverse = simd.div_f32s(simd.splat_f32s(1.0), chroma);
    let inverse = simd.select_f32s(some, inverse, simd.splat_f32s(0.0));
    let largest = [simd.equal_f32s(value, r), simd.equal_f32s(value, g)];
    let ways = [simd.sub_f32s(g, b), simd.sub_f32s(b, r), simd.sub_f32s(r, g)];
    let from = [simd.splat_f32s(0.0), simd.splat_f32s(2.0), simd.splat_f32s(4.0)];
    let (way, from) = (choose(simd, largest, ways), choose(simd, largest, from));
    let old = simd.mul_add_f32s(way, inverse, from);
    let hue = wrap(simd, simd.add_f32s(old, simd.splat_f32s(sixths)));
    let one = simd.splat_f32s(1.0);
    let parts = [
        simd.sub_f32s(simd.splat_f32s(2.0), distance(simd, hue, 3.0)),
        simd.sub_f32s(distance(simd, hue, 2.0), one),
        simd.sub_f32s(distance(simd, hue, 4.0), one),
    ];
    let mut turned = [value; 3];
    for c in 0..3 {
        let part = simd.mul_f32s(chroma, clipped(simd, parts[c]));
        turned[c] = simd.sub_f32s(value, part);
    }
    turned
}

/// |hue − other|.
#[inline(always)]
fn distance<S: Simd>(simd: S, hue: S::f32s, other: f32) -> S::f32s {
    simd.abs_f32s(simd.sub_f32s(hue, simd.splat_f32s(other)))
}

/// The value for red, green or blue, whichever is the largest.
#[inline(always)]
fn choose<S: Simd>(simd: S, [red, green]: [S::m32s; 2], values: Pixels<S>) -> S::f32s {
    simd.select_f32s(red, values[0], simd.select_f32s(green, values[1], values[2]))
}

/// Into 0..6, from at most one turn away.
#[inline(always)]
fn wrap<S: Simd>(simd: S, sixths: S::f32s) -> S::f32s {
    let (none, turn) = (simd.splat_f32s(0.0), simd.splat_f32s(6.0));
    let negative = simd.less_than_f32s(sixths, none);
    let raised = simd.select_f32s(negative, simd.add_f32s(sixths, turn), sixths);
    let over = simd.greater_than_or_equal_f32s(raised, turn);
    simd.select_f32s(over, simd.sub_f32s(raised, turn), raised)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every step on some planes, by the vectors of `arch`.
    fn coloured(arch: Arch, colour: Colour) -> (Vec<f32>, [f64; 3]) {
        let mut planes = Planes::default();
        planes.shape((37, 5), colour);
        let pixels = planes.pixels();
        for (c, plane) in (0_u8..).zip(planes.channels_mut()) {
            for (i, value) in (0_u8..).zip(plane) {
                *value = f32::from(i.wrapping_mul(37 + 14 * c)) / 230.0 - 0.05;
            }
        }
        let tones = [
            Some(Tone::Hue(-0.4)),
            Some(Tone::Affine(1.2, [0.03, -0.2, 0.1])),
            Some(Tone::Saturation(1.3)),
            Some(Tone::FromLuma(0.7)),
            Some(Tone::Hue(3.0)),
        ];
        let mut sums = Sums::default();
        let planes = &mut planes;
        arch.dispatch(Pass { colour, planes, tones: &tones, sums: Some(&mut sums) });
        assert_eq!(planes.channels()[0].len(), pixels);
        (planes.channels().concat(), sums.totals)
    }

    #[test]
    fn the_width_of_the_vectors_does_not_show() {
        for colour in [Colour::Gray, Colour::YCbCr, Colour::Rgb] {
            assert_eq!(coloured(Arch::Scalar, colour), coloured(Arch::new(), colour));
        }
    }
}
