//! Gaussian blur of float planes, separable, with reflected borders.
//!
//! Taps at the ends are left out as long as all of them together weigh less
//! than 10⁻⁶; no value changes by more than twice that.
//!
//! Source: `gaussian_blur` in `torchvision/transforms/_functional_tensor.py`.

#![expect(
    clippy::inline_always,
    reason = "code must become part of the loop that is compiled for wide vectors"
)]

use pulp::{Arch, Simd, WithSimd};

use crate::aligned::Aligned;
use crate::finish::Finish;
use crate::planes::Planes;

/// What the taps that are left out may weigh, of 1.
const NEGLIGIBLE: f32 = 1e-6;

/// Blurs; keeps its buffers between images.
#[derive(Debug, Default)]
pub(crate) struct Blur {
    /// Of the tap in the middle, and of those at both sides of it, going out.
    weights: Vec<f32>,
    /// A row of every channel after the pass down, with its reflected borders.
    padded: [Aligned; 3],
    /// A row of every channel, done.
    rows: [Aligned; 3],
}

impl Blur {
    /// Writes `planes`, blurred with `taps` weights of standard deviation `sigma`, in pixels.
    ///
    /// `channels` is 1 if all are equal.
    ///
    /// # Panics
    ///
    /// If half the taps reach over the whole image: there is nothing to reflect.
    pub(crate) fn write(
        &mut self,
        planes: &Planes,
        channels: usize,
        (taps, sigma): (usize, f32),
        finish: Finish,
        out: &mut [[f32; 3]],
    ) {
        self.set_weights(taps, sigma);
        let Self { weights, padded, rows } = self;
        let width = planes.width();
        for (padded, row) in padded.iter_mut().zip(&mut *rows) {
            padded.resize(width + 2 * (weights.len() - 1));
            row.resize(width);
        }
        let rows = &mut rows[..channels];
        Arch::new().dispatch(BlurRows { planes, weights, padded, rows, finish, out });
    }

    /// ```text
    /// w(i) ∝ exp(−½·(i/σ)²),  i = −(taps−1)/2 … (taps−1)/2,  Σw = 1
    /// ```
    #[expect(clippy::cast_precision_loss, reason = "a few dozen taps")]
    fn set_weights(&mut self, taps: usize, sigma: f32) {
        let weight = |i: usize| (-0.5 * (i as f32 / sigma).powi(2)).exp();
        self.weights.clear();
        self.weights.extend((0..=taps / 2).map(weight));
        let sum = |weights: &[f32]| weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
        let most = sum(&self.weights) * NEGLIGIBLE;
        let mut dropped = 0.0;
        while let [_, .., last] = self.weights[..] {
            dropped += 2.0 * last;
            if dropped > most {
                break;
            }
            self.weights.pop();
        }
        let factor = 1.0 / sum(&self.weights);
        for weight in &mut self.weights {
            *weight *= factor;
        }
    }
}

/// Both passes, row by row.
struct BlurRows<'a> {
    planes: &'a Planes,
    weights: &'a [f32],
    padded: &'a mut [Aligned; 3],
    rows: &'a mut [Aligned],
    finish: Finish,
    out: &'a mut [[f32; 3]],
}

impl WithSimd for BlurRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { planes, weights, padded, rows, finish, out } = self;
        let channels = planes.channels();
        for (y, out) in out.chunks_exact_mut(planes.width()).enumerate() {
            let buffers = padded.iter_mut().zip(&mut *rows);
            for (plane, (padded, row)) in channels.iter().zip(buffers) {
                down(simd, plane, y, weights, padded);
                across(simd, padded, weights, row);
            }
            let last = rows.len() - 1;
            finish.write(std::array::from_fn(|c| &rows[c.min(last)][..]), out);
        }
    }
}

/// Row `y` after the pass down, and its borders.
#[inline(always)]
fn down<S: Simd>(simd: S, plane: &[f32], y: usize, weights: &[f32], padded: &mut [f32]) {
    let reach = weights.len() - 1;
    let width = padded.len() - 2 * reach;
    let rows = plane.len() / width;
    let row = |y: usize| &plane[y * width..][..width];
    sum_pairs(simd, weights, &mut padded[reach..reach + width], |distance| {
        let below = y + distance;
        let below = if below < rows { below } else { 2 * (rows - 1) - below };
        (row(y.abs_diff(distance)), row(below))
    });
    for distance in 1..=reach {
        padded[reach - distance] = padded[reach + distance];
        padded[reach + width - 1 + distance] = padded[reach + width - 1 - distance];
    }
}

#[inline(always)]
fn across<S: Simd>(simd: S, padded: &[f32], weights: &[f32], out: &mut [f32]) {
    let (reach, width) = (weights.len() - 1, out.len());
    let row = |begin: usize| &padded[begin..][..width];
    sum_pairs(simd, weights, out, |distance| (row(reach - distance), row(reach + distance)));
}

/// Σ weight·(one + other) over the distances from the middle, where there is only one.
#[inline(always)]
fn sum_pairs<'a, S: Simd>(
    simd: S,
    weights: &[f32],
    out: &mut [f32],
    pair: impl Fn(usize) -> (&'a [f32], &'a [f32]),
) {
    let (wide, narrow) = (4 * S::F32_LANES, S::F32_LANES);
    let whole = out.len() / wide * wide;
    let last = out.len() - out.len() % narrow;
    for begin in (0..whole).step_by(wide) {
        sum_vectors::<S, 4>(simd, weights, begin, out, &pair);
    }
    for begin in (whole..last).step_by(narrow) {
        sum_vectors::<S, 1>(simd, weights, begin, out, &pair);
    }
    for x in last..out.len() {
        let middle = weights[0] * pair(0).0[x];
        out[x] = weights.iter().enumerate().skip(1).fold(middle, |sum, (distance, weight)| {
            let (one, other) = pair(distance);
            weight.mul_add(one[x] + other[x], sum)
        });
    }
}

/// `N` vectors of the sum, from `begin` on.
#[inline(always)]
fn sum_vectors<'a, S: Simd, const N: usize>(
    simd: S,
    weights: &[f32],
    begin: usize,
    out: &mut [f32],
    pair: &impl Fn(usize) -> (&'a [f32], &'a [f32]),
) {
    let middle = vectors::<S, N>(&pair(0).0[begin..]);
    let mut sums = [simd.splat_f32s(0.0); N];
    for i in 0..N {
        sums[i] = simd.mul_f32s(simd.splat_f32s(weights[0]), middle[i]);
    }
    for (distance, weight) in weights.iter().enumerate().skip(1) {
        let (one, other) = pair(distance);
        let (one, other) = (vectors::<S, N>(&one[begin..]), vectors::<S, N>(&other[begin..]));
        let weight = simd.splat_f32s(*weight);
        for i in 0..N {
            let both = simd.add_f32s(one[i], other[i]);
            sums[i] = simd.mul_add_f32s(weight, both, sums[i]);
        }
    }
    let out = S::as_mut_simd_f32s(&mut out[begin..]).0.first_chunk_mut();
    *out.expect("the caller counted") = sums;
}

#[inline(always)]
fn vectors<S: Simd, const N: usize>(values: &[f32]) -> &[S::f32s; N] {
    S::as_simd_f32s(values).0.first_chunk().expect("rows are as long as `out`")
}

#[cfg(test)]
mod tests {
    use lockstep_jpeg::Colour;

    use super::*;

    #[test]
    fn the_width_of_the_vectors_does_not_show() {
        let mut planes = Planes::default();
        planes.shape((77, 9), Colour::Rgb);
        for (c, plane) in (0_u8..).zip(planes.channels_mut()) {
            for (i, value) in (0..=u8::MAX).cycle().zip(plane) {
                *value = f32::from(i.wrapping_mul(37 + 14 * c)) / 255.0;
            }
        }
        let blurred = |arch: Arch| {
            let row = |len| {
                let mut row = Aligned::default();
                row.resize(len);
                row
            };
            let mut padded = [77 + 4; 3].map(row);
            let mut rows = [77; 3].map(row);
            let mut out = vec![[0.0; 3]; planes.pixels()];
            arch.dispatch(BlurRows {
                planes: &planes,
                weights: &[0.4, 0.2, 0.1],
                padded: &mut padded,
                rows: &mut rows,
                finish: Finish::new(true, [0.4; 3], [0.3; 3]),
                out: &mut out,
            });
            out
        };
        assert_eq!(blurred(Arch::Scalar), blurred(Arch::new()));
    }

    #[test]
    fn taps_that_weigh_nothing_are_left_out() {
        let mut blur = Blur::default();
        let taps = [0.1, 0.5, 1.0, 2.0].map(|sigma| {
            blur.set_weights(23, sigma);
            let sum = blur.weights[0] + 2.0 * blur.weights[1..].iter().sum::<f32>();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
            blur.weights.len()
        });
        assert_eq!(taps, [1, 3, 6, 11]);
    }
}
