//! Gaussian blur of float planes, separable, with reflected borders.
//!
//! Source: `gaussian_blur` in `torchvision/transforms/_functional_tensor.py`.

use crate::color::Planes;

/// Blurs; keeps its buffers between images.
#[derive(Debug, Default)]
pub(crate) struct Blur {
    weights: Vec<f32>,
    /// One row with its reflected borders.
    padded: Vec<f32>,
    /// A plane after the horizontal pass.
    half_done: Vec<f32>,
}

impl Blur {
    /// Blurs every plane with `taps` weights of standard deviation `sigma`, in pixels.
    ///
    /// # Panics
    ///
    /// If half the taps reach over the whole image: there is nothing to reflect.
    pub(crate) fn apply(&mut self, planes: &mut Planes, taps: usize, sigma: f32) {
        self.set_weights(taps, sigma);
        let width = planes.width();
        for plane in planes.channels() {
            self.half_done.resize(plane.len(), 0.0);
            self.horizontal(plane, width);
            self.vertical(plane, width);
        }
    }

    /// ```text
    /// w(i) ∝ exp(−½·(i/σ)²),  i = −(taps−1)/2 … (taps−1)/2,  Σw = 1
    /// ```
    #[expect(clippy::cast_precision_loss, reason = "a few dozen taps")]
    fn set_weights(&mut self, taps: usize, sigma: f32) {
        let half = (taps - 1) as f32 / 2.0;
        self.weights.clear();
        self.weights
            .extend((0..taps).map(|tap| (-0.5 * ((tap as f32 - half) / sigma).powi(2)).exp()));
        let sum: f32 = self.weights.iter().sum();
        self.weights.iter_mut().for_each(|weight| *weight /= sum);
    }

    fn horizontal(&mut self, plane: &[f32], width: usize) {
        let reach = self.weights.len() / 2;
        self.padded.resize(width + 2 * reach, 0.0);
        let rows = plane.chunks_exact(width).zip(self.half_done.chunks_exact_mut(width));
        for (row, out) in rows {
            for distance in 1..=reach {
                self.padded[reach - distance] = row[distance];
                self.padded[reach + width - 1 + distance] = row[width - 1 - distance];
            }
            self.padded[reach..reach + width].copy_from_slice(row);
            weighted_sum(out, &self.weights, |tap| &self.padded[tap..tap + width]);
        }
    }

    fn vertical(&self, plane: &mut [f32], width: usize) {
        let reach = self.weights.len() / 2;
        let rows = plane.len() / width;
        for (y, out) in plane.chunks_exact_mut(width).enumerate() {
            weighted_sum(out, &self.weights, |tap| {
                let source = reflected(y + tap, reach, rows) * width;
                &self.half_done[source..source + width]
            });
        }
    }
}

/// The row that stands for `position − reach`, mirrored at the first and last row.
fn reflected(position: usize, reach: usize, rows: usize) -> usize {
    let from_top = position.abs_diff(reach);
    if from_top < rows { from_top } else { 2 * (rows - 1) - from_top }
}

fn weighted_sum<'a>(out: &mut [f32], weights: &[f32], row: impl Fn(usize) -> &'a [f32]) {
    out.fill(0.0);
    for (tap, weight) in weights.iter().enumerate() {
        for (sum, value) in out.iter_mut().zip(row(tap)) {
            *sum += weight * value;
        }
    }
}
