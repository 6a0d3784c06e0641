//! JPEGs that cost a decoder and a resizer what photographs do, made from nothing.
//!
//! Photographs vary about as much from one octave of detail to the next, less where a lens loses it; so does this
//! sum of octaves of noise. It varies less in colour than in brightness, as photographs do.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "sides and steps of 8 bits are small numbers"
)]

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use lockstep_data::keyed::{Key, Purpose};

/// Sides of most photographs in ImageNet.
const SIDES: [u16; 2] = [500, 375];
/// Makes files of about 105 KB, the mean of ImageNet's.
const QUALITY: u8 = 92;
/// Distance between the lattice points of each octave, in pixels.
const CELLS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];
/// Standard deviation of the coarsest octave, in steps of 8 bits.
const STRENGTH: f32 = 55.0;
/// Strength of an octave, as a share of that of the one before.
const DECAY: f32 = 0.76;

/// JPEG number `index`: two of three lie, and two of three have colour at half resolution.
pub(super) fn jpeg(index: u64) -> Vec<u8> {
    let [width, height] = if index % 3 == 2 { [SIDES[1], SIDES[0]] } else { SIDES };
    let sampling = if index % 9 < 6 { SamplingFactor::F_2_2 } else { SamplingFactor::F_1_1 };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(sampling);
    encoder
        .encode(&pixels(index, width.into(), height.into()), width, height, ColorType::Rgb)
        .expect("memory takes every write, and the sides are small");
    bytes
}

fn pixels(index: u64, width: usize, height: usize) -> Vec<u8> {
    let key = Key::new(index);
    let [light, warmth, tint] =
        [0, 1, 2].map(|plane| noise(key.derive(Purpose::Sample, plane), width, height));
    let mut rgb = Vec::with_capacity(3 * width * height);
    for ((light, warmth), tint) in light.into_iter().zip(warmth).zip(tint) {
        let (warmth, tint) = (0.25 * warmth, 0.15 * tint);
        rgb.extend([light + warmth, light + tint, light - warmth].map(|value| byte(120.0 + value)));
    }
    rgb
}

/// The sum of all octaves.
fn noise(key: Key, width: usize, height: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width * height];
    let mut strength = STRENGTH;
    for (octave, cell) in (0..).zip(CELLS) {
        let lattice = Lattice::new(key.derive(Purpose::View, octave), width, height, cell);
        for (y, row) in sum.chunks_exact_mut(width).enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                *value += strength * lattice.at(x, y);
            }
        }
        strength *= DECAY;
    }
    sum
}

/// Random values at points `cell` pixels apart, and straight lines between them.
struct Lattice {
    values: Vec<f32>,
    stride: usize,
    cell: usize,
}

impl Lattice {
    fn new(key: Key, width: usize, height: usize, cell: usize) -> Self {
        let (stride, rows) = (width / cell + 2, height / cell + 2);
        // Uniform with deviation 1.
        let value = |index| key.between(index, -1.732, 1.732) as f32;
        Self { values: (0..(stride * rows) as u64).map(value).collect(), stride, cell }
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        let (column, row) = (x / self.cell, y / self.cell);
        let part = |place: usize| (place % self.cell) as f32 / self.cell as f32;
        let line = |row: usize| {
            let [left, right] = [0, 1].map(|next| self.values[row * self.stride + column + next]);
            left + (right - left) * part(x)
        };
        let (above, below) = (line(row), line(row + 1));
        above + (below - above) * part(y)
    }
}

fn byte(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_as_large_as_those_of_photographs_and_the_same_every_time() {
        for index in [0, 6] {
            let bytes = jpeg(index);
            assert!((80_000..140_000).contains(&bytes.len()), "{}", bytes.len());
            assert_eq!(bytes, jpeg(index));
        }
        assert_ne!(jpeg(0), jpeg(1));
    }
}
