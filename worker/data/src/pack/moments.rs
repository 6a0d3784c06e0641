//! Mean and deviation of the colour channels.

use serde::{Deserialize, Serialize};

use crate::rgb::RgbImage;

/// Sums for mean and deviation of each channel; whole numbers, so exact in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moments {
    pixels: u64,
    sums: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    /// Those of one image.
    pub(super) fn of(image: &RgbImage) -> Self {
        let pixels = image.pixels.as_chunks::<3>().0;
        let mut moments = Self { pixels: pixels.len() as u64, ..Self::default() };
        for pixel in pixels {
            let channels = moments.sums.iter_mut().zip(&mut moments.squares);
            for ((sum, square), value) in channels.zip(pixel) {
                let value = u64::from(*value);
                *sum += value;
                *square += value * value;
            }
        }
        moments
    }

    /// Those of both together.
    pub(super) fn add(&mut self, other: &Self) {
        self.pixels += other.pixels;
        for channel in 0..3 {
            self.sums[channel] += other.sums[channel];
            self.squares[channel] += other.squares[channel];
        }
    }

    /// In 0..=1; `None` if a channel is constant, since nothing can be divided by that.
    #[expect(clippy::cast_precision_loss, reason = "sums of bytes; 53 bits are plenty")]
    #[expect(clippy::cast_possible_truncation, reason = "values in 0..=1")]
    pub(super) fn mean_and_std(&self) -> Option<([f32; 3], [f32; 3])> {
        let pixels = self.pixels as f64;
        let mean = self.sums.map(|sum| sum as f64 / pixels);
        let std: [f64; 3] = std::array::from_fn(|channel| {
            (self.squares[channel] as f64 / pixels - mean[channel] * mean[channel]).max(0.0).sqrt()
        });
        let scaled = |values: [f64; 3]| values.map(|value| (value / 255.0) as f32);
        std.iter().all(|deviation| *deviation > 0.0).then(|| (scaled(mean), scaled(std)))
    }
}
