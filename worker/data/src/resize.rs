//! Antialiased bicubic resizing, straight from the planes of an image.
//!
//! ```text
//! 8 rows of the target at a time:  samples ──▶ down ──▶ across ──▶ target
//! ```
//!
//! The weights are those of Pillow and torchvision ([`crate::weights`]). There
//! is no rounding to 8 bits on the way or in the end, and no clipping in
//! between: what these two do to 8-bit images differs from this by about half a
//! step of 8 bits, and by more in single values where the cubic overshoots
//! at hard edges. On floats torchvision does the same as this.
//!
//! Every sum runs in one lane, in the order of the samples, by fused
//! multiply-add, so the width of the machine's vectors does not show.

#![expect(
    clippy::inline_always,
    reason = "code must become part of the loop that is compiled for wide vectors"
)]

use std::ops::Range;

use lockstep_jpeg::{PlanarImage, Plane, Region};
use pulp::{Arch, Simd, WithSimd};

use crate::aligned::Aligned;
use crate::planes::Planes;
use crate::rgb::is_interpolated;
use crate::weights::{BLOCK, Blocks, Reading, Span, Weights};

/// Rows of the target that are made together.
const BAND: usize = 8;

/// Columns and rows that become the target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) columns: Span,
    pub(crate) rows: Span,
}

impl Part {
    /// The pixels that have influence on a target of `width` × `height`.
    pub(crate) fn region(&self, (width, height): (u32, u32)) -> Region {
        let (columns, rows) = (self.columns.reach(width), self.rows.reach(height));
        Region {
            left: columns.start,
            top: rows.start,
            width: columns.end - columns.start,
            height: rows.end - rows.start,
        }
    }
}

/// Resizes; keeps its buffers between images.
#[derive(Debug, Default)]
pub(crate) struct Resizer {
    /// For samples that are a pixel wide, and two pixels.
    columns: [Columns; 2],
    /// For samples that are a pixel high, and two pixels.
    rows: [Weights; 2],
    /// The samples that some rows of the target need.
    strip: Aligned,
    /// These rows of the target after the pass down.
    band: Aligned,
}

/// Weights of the pass across.
#[derive(Debug, Default)]
struct Columns {
    weights: Weights,
    blocks: Blocks,
    reach: Range<usize>,
}

impl Resizer {
    /// Replaces `out` with `part` of `image`, resized to `width` × `height`, in fractions of 255.
    ///
    /// # Panics
    ///
    /// If the part is empty or leaves the image.
    pub(crate) fn resize(
        &mut self,
        image: &PlanarImage,
        part: &Part,
        (width, height): (u32, u32),
        reading: Reading,
        out: &mut Planes,
    ) {
        self.weigh(image, part, (width, height), reading);
        let Self { columns, rows, strip, band } = self;
        out.shape((width as usize, height as usize), image.colour);
        for (plane, target) in image.planes.iter().zip(out.channels_mut()) {
            let [across, down] = plane.shrink.map(|shrink| shrink as usize - 1);
            let (columns, rows) = (&columns[across], &rows[down]);
            let width = width as usize;
            Arch::new().dispatch(ResizePlane { plane, columns, rows, width, strip, band, target });
        }
    }

    fn weigh(
        &mut self,
        image: &PlanarImage,
        part: &Part,
        (width, height): (u32, u32),
        reading: Reading,
    ) {
        let [columns, halved_columns] = &mut self.columns;
        let [rows, halved_rows] = &mut self.rows;
        columns.weights.set(&part.columns, width);
        rows.set(&part.rows, height);
        rows.scale(1.0 / 255.0);
        columns.arrange(reading);
        if let Some(chroma) = image.planes.iter().find(|plane| plane.shrink != [1, 1]) {
            let smooth = is_interpolated(chroma, image.width);
            let samples = [image.width, image.height].map(|side| side.div_ceil(2) as usize);
            halved_columns.weights.set_halved(&columns.weights, samples[0], smooth);
            halved_columns.arrange(reading);
            halved_rows.set_halved(rows, samples[1], smooth);
        }
    }
}

impl Columns {
    fn arrange(&mut self, reading: Reading) {
        self.reach = self.weights.reach(0..self.weights.len());
        self.blocks.set(&self.weights, self.reach.start, reading);
    }
}

/// Both passes over one plane.
struct ResizePlane<'a> {
    plane: &'a Plane,
    columns: &'a Columns,
    rows: &'a Weights,
    width: usize,
    strip: &'a mut Aligned,
    band: &'a mut Aligned,
    target: &'a mut [f32],
}

impl WithSimd for ResizePlane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { plane, columns, rows, width, strip, band, target } = self;
        let reach = columns.reach.clone();
        // Whole vectors; what the last ones have too much is never looked at.
        let stride = reach.len().next_multiple_of(BLOCK);
        band.resize(BAND * stride);
        let band = &mut **band;
        for (index, target) in target.chunks_mut(BAND * width).enumerate() {
            let targets = index * BAND..index * BAND + target.len() / width;
            let samples = rows.reach(targets.clone());
            strip.resize(samples.len() * stride);
            let strip = &mut **strip;
            for (row, out) in samples.clone().zip(strip.chunks_exact_mut(stride)) {
                let row = &plane.samples[row * plane.stride..][reach.clone()];
                out.iter_mut().zip(row).for_each(|(out, sample)| *out = f32::from(*sample));
            }
            for (target, out) in targets.zip(band.chunks_exact_mut(stride)) {
                let (first, weights) = rows.window(target);
                pass_down(simd, weights, &strip[(first - samples.start) * stride..], out);
            }
            pass_across(simd, band, stride, &columns.blocks, width, target);
        }
    }
}

/// Σ weight·row, where rows are as long as `out`.
#[inline(always)]
fn pass_down<S: Simd>(simd: S, weights: &[f32], rows: &[f32], out: &mut [f32]) {
    let stride = out.len();
    let (wide, narrow) = (4 * S::F32_LANES, S::F32_LANES);
    let whole = stride / wide * wide;
    for begin in (0..whole).step_by(wide) {
        sum_columns::<S, 4>(simd, weights, (&rows[begin..], stride), &mut out[begin..]);
    }
    for begin in (whole..stride).step_by(narrow) {
        sum_columns::<S, 1>(simd, weights, (&rows[begin..], stride), &mut out[begin..]);
    }
}

/// The first `N` vectors of the sum.
#[inline(always)]
fn sum_columns<S: Simd, const N: usize>(
    simd: S,
    weights: &[f32],
    (rows, stride): (&[f32], usize),
    out: &mut [f32],
) {
    let mut sums = [simd.splat_f32s(0.0); N];
    for (weight, row) in weights.iter().zip(rows.chunks(stride)) {
        let weight = simd.splat_f32s(*weight);
        let row: &[_; N] = S::as_simd_f32s(row).0.first_chunk().expect("rows go on that far");
        for i in 0..N {
            sums[i] = simd.mul_add_f32s(weight, row[i], sums[i]);
        }
    }
    *S::as_mut_simd_f32s(out).0.first_chunk_mut().expect("as long as a row") = sums;
}

/// Makes rows of the target, at most [`BAND`], of rows with `stride` samples.
#[inline(always)]
fn pass_across<S: Simd>(
    simd: S,
    band: &[f32],
    stride: usize,
    blocks: &Blocks,
    width: usize,
    target: &mut [f32],
) {
    for (block, (first, matrix)) in blocks.iter().enumerate() {
        let rows: [&[f32]; BAND] =
            std::array::from_fn(|row| &band[row * stride + first..][..matrix.len()]);
        let mut made = [[0.0; BLOCK]; BAND];
        for part in 0..BLOCK / S::F32_LANES {
            let mut sums = [simd.splat_f32s(0.0); BAND];
            for (k, weights) in matrix.iter().enumerate() {
                let weights = S::as_simd_f32s(weights).0[part];
                for row in 0..BAND {
                    let sample = simd.splat_f32s(rows[row][k]);
                    sums[row] = simd.mul_add_f32s(sample, weights, sums[row]);
                }
            }
            for (made, sums) in made.iter_mut().zip(sums) {
                S::as_mut_simd_f32s(made).0[part] = sums;
            }
        }
        for (out, made) in target.chunks_exact_mut(width).zip(&made) {
            let out = &mut out[block * BLOCK..];
            match out.first_chunk_mut() {
                Some(out) => *out = *made,
                None => out.copy_from_slice(&made[..out.len()]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples in rows of 50, and weights that make 23 × 11 of 40 × 7 of them.
    fn scene() -> (Plane, Columns, Weights) {
        let samples = (0..=u8::MAX).cycle().step_by(7).take(450).collect();
        let plane = Plane { samples, stride: 50, shrink: [1, 1] };
        let (mut columns, mut rows) = (Columns::default(), Weights::default());
        columns.weights.set(&Span::alone(9, 40), 23);
        columns.arrange(Reading::Mirrored);
        rows.set(&Span::alone(1, 7), 11);
        (plane, columns, rows)
    }

    fn resized(arch: Arch) -> Vec<f32> {
        let (plane, columns, rows) = scene();
        let mut target = vec![0.0; 23 * 11];
        arch.dispatch(ResizePlane {
            plane: &plane,
            columns: &columns,
            rows: &rows,
            width: 23,
            strip: &mut Aligned::default(),
            band: &mut Aligned::default(),
            target: &mut target,
        });
        target
    }

    #[test]
    fn the_width_of_the_vectors_does_not_show() {
        assert_eq!(resized(Arch::Scalar), resized(Arch::new()));
    }

    #[test]
    fn bands_and_blocks_add_up_to_the_weighted_sum_of_all_samples() {
        let (plane, columns, rows) = scene();
        for (index, found) in resized(Arch::new()).into_iter().enumerate() {
            let (x, y) = (index % 23, index / 23);
            let (left, across) = columns.weights.window(22 - x);
            let (top, down) = rows.window(y);
            let row = |row: usize| {
                let samples = &plane.samples[row * plane.stride + left..];
                samples.iter().zip(across).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            let expected: f64 =
                (top..).zip(down).map(|(at, weight)| f64::from(*weight) * row(at)).sum();
            assert!((f64::from(found) - expected).abs() < 1e-3, "{x} {y}: {found} {expected}");
        }
    }
}
