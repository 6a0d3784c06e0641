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

use crate::color::Finish;
use crate::planes::{LANES, Planes};
use crate::wide::wide;

/// What the taps that are left out may weigh, of 1.
const NEGLIGIBLE: f32 = 1e-6;

/// Blurs; keeps its buffers between images.
#[derive(Debug, Default)]
pub(crate) struct Blur {
    /// Of the tap in the middle, and of those at both sides of it, going out.
    weights: Vec<f32>,
    /// A row of every channel after the pass down, with its reflected borders.
    padded: [Vec<f32>; 3],
    /// A row of every channel, done.
    rows: [Vec<f32>; 3],
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
        let width = planes.width();
        let Self { weights, padded, rows } = self;
        padded.iter_mut().for_each(|row| row.resize(width + 2 * (weights.len() - 1), 0.0));
        rows.iter_mut().for_each(|row| row.resize(width, 0.0));
        wide(
            #[inline(always)]
            || {
                for (y, out) in out.chunks_exact_mut(width).enumerate() {
                    let sources = planes.channels().into_iter().take(channels);
                    for ((plane, padded), row) in sources.zip(&mut *padded).zip(&mut *rows) {
                        down(plane, y, weights, padded, width);
                        across(padded, weights, row);
                    }
                    let [r, g, b] = std::array::from_fn(|c| &rows[c.min(channels - 1)]);
                    finish_row([r, g, b], finish, out);
                }
            },
        );
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
        self.weights.iter_mut().for_each(|weight| *weight *= factor);
    }
}

/// Row `y` after the pass down, and its borders.
#[inline(always)]
fn down(plane: &[f32], y: usize, weights: &[f32], padded: &mut [f32], width: usize) {
    let (reach, rows) = (weights.len() - 1, plane.len() / width);
    let row = |y: usize| &plane[y * width..][..width];
    sum_pairs(weights, &mut padded[reach..reach + width], |distance| {
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
fn across(padded: &[f32], weights: &[f32], out: &mut [f32]) {
    let (reach, width) = (weights.len() - 1, out.len());
    let row = |begin: usize| &padded[begin..][..width];
    sum_pairs(weights, out, |distance| (row(reach - distance), row(reach + distance)));
}

/// Σ weight·(one + other) over the distances from the middle, where there is only one.
#[inline(always)]
fn sum_pairs<'a>(weights: &[f32], out: &mut [f32], pair: impl Fn(usize) -> (&'a [f32], &'a [f32])) {
    match out.len() {
        LANES.. => sum_pairs_by::<LANES>(weights, out, pair),
        4.. => sum_pairs_by::<4>(weights, out, pair),
        _ => sum_pairs_by::<1>(weights, out, pair),
    }
}

/// `N` values at a time; the last ones overlap those before.
#[inline(always)]
fn sum_pairs_by<'a, const N: usize>(
    weights: &[f32],
    out: &mut [f32],
    pair: impl Fn(usize) -> (&'a [f32], &'a [f32]),
) {
    let last = out.len() - N;
    for begin in (0..out.len()).step_by(N) {
        let begin = begin.min(last);
        let values = |row: &'a [f32]| -> &'a [f32; N] {
            row[begin..].first_chunk().expect("as long as `out`")
        };
        let mut sums = values(pair(0).0).map(|value| value * weights[0]);
        for (distance, weight) in weights.iter().enumerate().skip(1) {
            let (one, other) = pair(distance);
            let (one, other) = (values(one), values(other));
            for i in 0..N {
                sums[i] = weight.mul_add(one[i] + other[i], sums[i]);
            }
        }
        out[begin..begin + N].copy_from_slice(&sums);
    }
}

#[inline(always)]
fn finish_row(rows: [&[f32]; 3], finish: Finish, out: &mut [[f32; 3]]) {
    for (chunk, out) in out.chunks_mut(LANES).enumerate() {
        let mut lanes = [[0.0; LANES]; 3];
        for (lanes, row) in lanes.iter_mut().zip(rows) {
            lanes[..out.len()].copy_from_slice(&row[chunk * LANES..][..out.len()]);
        }
        finish.write(lanes, out);
    }
}
