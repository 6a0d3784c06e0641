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

use crate::planes::Planes;
use crate::rgb::is_interpolated;
use crate::weights::{BLOCK, Blocks, Reading, Span, Weights};
use crate::wide::wide;

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
    /// A row of samples for each row of the target, after the pass down.
    band: Vec<f32>,
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
        let Self { columns, rows, band } = self;
        out.shape((width as usize, height as usize), image.colour);
        for (plane, target) in image.planes.iter().zip(out.channels_mut()) {
            let [across, down] = plane.shrink.map(|shrink| shrink as usize - 1);
            let (columns, rows) = (&columns[across], &rows[down]);
            band.resize(BAND * columns.reach.len(), 0.0);
            wide(
                #[inline(always)]
                || {
                    for (index, target) in target.chunks_mut(BAND * width as usize).enumerate() {
                        let first = index * BAND;
                        pass_down(
                            plane,
                            rows,
                            first..(height as usize).min(first + BAND),
                            &columns.reach,
                            band,
                        );
                        pass_across(band, columns, width as usize, target);
                    }
                },
            );
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
        self.reach = self.weights.reach();
        self.blocks.set(&self.weights, self.reach.start, reading);
    }
}

/// Makes the samples of some rows of the target, as many columns as `reach` has.
#[inline(always)]
fn pass_down(
    plane: &Plane,
    rows: &Weights,
    targets: Range<usize>,
    reach: &Range<usize>,
    band: &mut [f32],
) {
    for (target, out) in targets.zip(band.chunks_exact_mut(reach.len())) {
        let (first, weights) = rows.window(target);
        let row = |k: usize| &plane.samples[(first + k) * plane.stride..][reach.clone()];
        match out.len() {
            64.. => sum_rows::<64>(weights, row, out),
            16.. => sum_rows::<16>(weights, row, out),
            4.. => sum_rows::<4>(weights, row, out),
            _ => sum_rows::<1>(weights, row, out),
        }
    }
}

/// Σ weight·row, `N` columns at a time; the last ones overlap those before.
#[inline(always)]
fn sum_rows<'a, const N: usize>(weights: &[f32], row: impl Fn(usize) -> &'a [u8], out: &mut [f32]) {
    let last = out.len() - N;
    for begin in (0..out.len()).step_by(N) {
        let begin = begin.min(last);
        let mut sums = [0.0; N];
        for (k, weight) in weights.iter().enumerate() {
            let samples: &[u8; N] = row(k)[begin..].first_chunk().expect("as long as `out`");
            for i in 0..N {
                sums[i] = weight.mul_add(f32::from(samples[i]), sums[i]);
            }
        }
        out[begin..begin + N].copy_from_slice(&sums);
    }
}

/// Makes rows of the target, at most [`BAND`].
#[inline(always)]
fn pass_across(band: &[f32], columns: &Columns, width: usize, target: &mut [f32]) {
    let stride = columns.reach.len();
    for (block, (first, matrix)) in columns.blocks.iter().enumerate() {
        let rows: [&[f32]; BAND] =
            std::array::from_fn(|row| &band[row * stride + first..][..matrix.len()]);
        let mut sums = [[0.0; BLOCK]; BAND];
        for (k, weights) in matrix.iter().enumerate() {
            for (sums, row) in sums.iter_mut().zip(rows) {
                for i in 0..BLOCK {
                    sums[i] = row[k].mul_add(weights[i], sums[i]);
                }
            }
        }
        let begin = block * BLOCK;
        let len = BLOCK.min(width - begin);
        for (out, sums) in target.chunks_exact_mut(width).zip(&sums) {
            out[begin..begin + len].copy_from_slice(&sums[..len]);
        }
    }
}
