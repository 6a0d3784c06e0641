//! How much every source sample counts in every target pixel, along one side.
//!
//! Bicubic with a = −0.5 (Catmull-Rom), widened by the scale when shrinking:
//!
//! ```text
//! s = length/size,  f = max(s, 1),  c(i) = start + (i + ½)·s
//! w(i, k) ∝ cubic((k + ½ − c(i))/f)  for pixels k in c ± 2f and within the limits,  Σₖ w = 1
//! ```
//!
//! Chroma that is stored at half the resolution is not upsampled first: each
//! pixel there is ¾ of the sample that it lies in and ¼ of the next one, so its
//! weight is given to those two.
//!
//! Source: `precompute_coeffs` in Pillow's `Resample.c`, which torchvision's
//! antialiased kernels follow; `jdsample.c` in libjpeg-turbo for the chroma.

use std::ops::Range;

/// Target pixels whose weights stand together in a [`Block`].
pub(crate) const BLOCK: usize = 16;

/// What is resized along one side, in pixels of the image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    /// Where the target begins.
    pub(crate) start: f64,
    /// What it covers.
    pub(crate) length: f64,
    /// The pixels that may have influence.
    pub(crate) within: Range<u32>,
}

impl Span {
    /// Whole pixels, alone: what lies around them has no influence.
    pub(crate) fn alone(start: u32, length: u32) -> Self {
        let within = start..start + length;
        Self { start: f64::from(start), length: f64::from(length), within }
    }

    /// The pixels that have influence on a target of `size`.
    pub(crate) fn reach(&self, size: u32) -> Range<u32> {
        let Range { start, end } = &self.within;
        let support = 2.0 * (self.length / f64::from(size)).max(1.0);
        let first = whole(self.start - support).max(*start);
        let last = whole((self.start + self.length + support).ceil()).min(*end);
        first..last
    }
}

/// In which order the target pixels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Forward,
    Mirrored,
}

/// Weights of one side; keeps its memory between images.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    /// First sample and number of samples of every target pixel.
    windows: Vec<(usize, usize)>,
    /// Weights of every target pixel, `stride` each, with zeros after the last.
    values: Vec<f32>,
    stride: usize,
}

impl Weights {
    /// Samples that are plain pixels.
    pub(crate) fn set(&mut self, span: &Span, size: u32) {
        let scale = span.length / f64::from(size);
        let widening = scale.max(1.0);
        let support = 2.0 * widening;
        let limits = f64::from(span.within.end - span.within.start);
        let start = span.start - f64::from(span.within.start);
        let offset = span.within.start as usize;
        self.clear(size as usize, whole(2.0 * support) as usize + 2);
        for (i, values) in (0..size).zip(self.values.chunks_exact_mut(self.stride)) {
            let centre = start + (f64::from(i) + 0.5) * scale;
            let first = (centre - support + 0.5).floor().max(0.0);
            let end = (centre + support + 0.5).floor().min(limits);
            let count = whole(end - first) as usize;
            fill(&mut values[..count], narrow(first + 0.5 - centre), narrow(1.0 / widening));
            self.windows.push((offset + whole(first) as usize, count));
        }
    }

    /// Samples that stand for two pixels each, `samples` in all, from the weights of the pixels.
    ///
    /// With `smooth`, pixels are interpolated between samples.
    pub(crate) fn set_halved(&mut self, pixels: &Self, samples: usize, smooth: bool) {
        self.clear(pixels.windows.len(), pixels.stride / 2 + 3);
        let rows = self.values.chunks_exact_mut(self.stride);
        for ((pixel, count, weights), values) in pixels.windows().zip(rows) {
            let first = if smooth { pixel.saturating_sub(1) / 2 } else { pixel / 2 };
            let mut last = first;
            for (pixel, weight) in (pixel..pixel + count).zip(weights) {
                let near = pixel / 2;
                let far = if pixel.is_multiple_of(2) { near.saturating_sub(1) } else { near + 1 };
                let far = if smooth { far.min(samples - 1) } else { near };
                values[near - first] += 0.75 * weight;
                values[far - first] += 0.25 * weight;
                last = last.max(near).max(far);
            }
            self.windows.push((first, last - first + 1));
        }
    }

    /// Multiplies every weight.
    pub(crate) fn scale(&mut self, factor: f32) {
        for value in &mut self.values {
            *value *= factor;
        }
    }

    /// Number of target pixels.
    pub(crate) fn len(&self) -> usize {
        self.windows.len()
    }

    /// All samples that have influence on some target pixels.
    pub(crate) fn reach(&self, targets: Range<usize>) -> Range<usize> {
        let windows = self.windows[targets].iter();
        let reach = windows.fold((usize::MAX, 0), |(start, end), (first, count)| {
            (start.min(*first), end.max(first + count))
        });
        reach.0..reach.1
    }

    /// First sample and weights of a target pixel.
    pub(crate) fn window(&self, target: usize) -> (usize, &[f32]) {
        let (first, count) = self.windows[target];
        (first, &self.values[target * self.stride..][..count])
    }

    fn windows(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        let rows = self.windows.iter().zip(self.values.chunks_exact(self.stride));
        rows.map(|(&(first, count), values)| (first, count, &values[..count]))
    }

    fn clear(&mut self, targets: usize, stride: usize) {
        self.windows.clear();
        self.values.clear();
        self.values.resize(targets * stride, 0.0);
        self.stride = stride;
    }
}

/// The weights of a side once more, [`BLOCK`] target pixels at a time.
///
/// All samples that a block needs stand in one run, and every one of them has a
/// weight, often 0, for every target of the block. That is three times the
/// products, and still faster: no sample has to be moved to another lane.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    matrices: Vec<[f32; BLOCK]>,
}

/// Some target pixels next to each other.
#[derive(Debug)]
struct Block {
    /// First sample.
    first: usize,
    /// Its matrix, a row per sample.
    rows: Range<usize>,
}

impl Blocks {
    /// Arranges `weights`; sample 0 is the one at `origin`.
    pub(crate) fn set(&mut self, weights: &Weights, origin: usize, reading: Reading) {
        self.blocks.clear();
        self.matrices.clear();
        let targets = weights.windows.len();
        for begin in (0..targets).step_by(BLOCK) {
            let places = begin..targets.min(begin + BLOCK);
            let target = |place: usize| match reading {
                Reading::Forward => place,
                Reading::Mirrored => targets - 1 - place,
            };
            let windows = places.clone().map(|place| weights.windows[target(place)]);
            let (first, end) = windows.fold((usize::MAX, 0), |(first, end), (start, count)| {
                (first.min(start), end.max(start + count))
            });
            let matrix = self.matrices.len();
            self.matrices.resize(matrix + end - first, [0.0; BLOCK]);
            for (lane, place) in places.enumerate() {
                let (start, values) = weights.window(target(place));
                let rows = &mut self.matrices[matrix + start - first..];
                rows.iter_mut().zip(values).for_each(|(row, value)| row[lane] = *value);
            }
            let rows = matrix..self.matrices.len();
            self.blocks.push(Block { first: first - origin, rows });
        }
    }

    /// First sample and matrix of every block.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[[f32; BLOCK]])> {
        self.blocks.iter().map(|block| (block.first, &self.matrices[block.rows.clone()]))
    }
}

/// Weights of pixels that lie at `offset`, `offset` + 1, … from the centre, with sum 1.
#[expect(clippy::cast_precision_loss, reason = "a few hundred taps")]
fn fill(values: &mut [f32], offset: f32, narrowing: f32) {
    for (k, value) in values.iter_mut().enumerate() {
        *value = cubic((offset + k as f32) * narrowing);
    }
    let factor = 1.0 / values.iter().sum::<f32>();
    for value in values {
        *value *= factor;
    }
}

/// ```text
///          1.5·|x|³ − 2.5·|x|² + 1            |x| < 1
/// cubic =  −0.5·|x|³ + 2.5·|x|² − 4·|x| + 2   |x| < 2
///          0                                  else
/// ```
fn cubic(x: f32) -> f32 {
    let x = x.abs();
    let inner = (1.5 * x - 2.5) * x * x + 1.0;
    let outer = ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0;
    if x < 1.0 {
        inner
    } else if x < 2.0 {
        outer
    } else {
        0.0
    }
}

/// Rounds down, from 0 on.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions in an image; the cast saturates"
)]
fn whole(position: f64) -> u32 {
    position as u32
}

#[expect(clippy::cast_possible_truncation, reason = "distances of a few pixels")]
fn narrow(value: f64) -> f32 {
    value as f32
}
