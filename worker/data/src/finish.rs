//! The end of a view: solarize and normalize, from planes of RGB to interleaved pixels.

#![expect(
    clippy::inline_always,
    reason = "code must become part of the loop that is compiled for wide vectors"
)]

use pulp::{Arch, Simd, WithSimd};

use crate::planes::Planes;

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

    /// Writes a row of each channel as interleaved pixels.
    #[inline(always)]
    pub(crate) fn write(&self, [r, g, b]: [&[f32]; 3], out: &mut [[f32; 3]]) {
        for (((out, r), g), b) in out.iter_mut().zip(r).zip(g).zip(b) {
            *out = [self.value(*r, 0), self.value(*g, 1), self.value(*b, 2)];
        }
    }

    #[inline(always)]
    fn value(&self, x: f32, channel: usize) -> f32 {
        let x = if self.solarize && x >= 0.5 { 1.0 - x } else { x };
        x.mul_add(self.factor[channel], self.shift[channel])
    }
}

/// Writes planes of RGB as interleaved pixels.
pub(crate) fn write(planes: &Planes, finish: Finish, out: &mut [[f32; 3]]) {
    Arch::new().dispatch(Write { planes, finish, out });
}

struct Write<'a> {
    planes: &'a Planes,
    finish: Finish,
    out: &'a mut [[f32; 3]],
}

impl WithSimd for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.finish.write(self.planes.channels(), self.out);
    }
}

/// Writes planes of RGB as interleaved pixels of 8 bits, rounded.
pub(crate) fn round(planes: &Planes, out: &mut [[u8; 3]]) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=255 in 0..=1")]
    let byte = |x: f32| (255.0 * x).round() as u8;
    let [r, g, b] = planes.channels();
    for (((out, r), g), b) in out.iter_mut().zip(r).zip(g).zip(b) {
        *out = [*r, *g, *b].map(byte);
    }
}
