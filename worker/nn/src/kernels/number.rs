//! Element types of the host loops: how they are stored, and what they are computed in.

#![expect(
    clippy::inline_always,
    reason = "code must become part of the loop that is compiled for wide vectors"
)]

use std::ops::{Add, Mul, Sub};

use half::bf16;

use crate::tensor::Scalar;

/// A stored element.
pub(crate) trait Number: Scalar {
    /// What arithmetic on it is done in.
    type Wide: Wide;
    /// Exact.
    fn widen(self) -> Self::Wide;
    /// Rounds.
    fn narrow(wide: Self::Wide) -> Self;
    /// Above 0; NaN is not.
    fn is_positive(self) -> bool;
}

/// Arithmetic that the host loops need.
pub(crate) trait Wide:
    Copy
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + PartialOrd
{
    /// 0.
    const ZERO: Self;
    /// Rounds.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
}

impl Wide for f32 {
    const ZERO: Self = 0.0;
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
    fn from_f64(x: f64) -> Self {
        x as Self
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Wide for f64 {
    const ZERO: Self = 0.0;
    fn from_f64(x: f64) -> Self {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
}

impl<W: Wide + Scalar> Number for W {
    type Wide = W;
    #[inline(always)]
    fn widen(self) -> W {
        self
    }
    #[inline(always)]
    fn narrow(wide: W) -> W {
        wide
    }
    #[inline(always)]
    fn is_positive(self) -> bool {
        self > W::ZERO
    }
}

impl Number for bf16 {
    type Wide = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    /// To nearest, ties to even; NaN stays NaN. Without branches, and in 32 bits up to the end, so that loops of it are
    /// vectorized well.
    #[inline(always)]
    fn narrow(wide: f32) -> Self {
        let bits = wide.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let quiet = bits | 0x0040_0000;
        Self::from_bits(((if wide.is_nan() { quiet } else { rounded }) >> 16) as u16)
    }
    /// In 16 bits: infinity is the last number above 0, and NaNs follow.
    #[inline(always)]
    fn is_positive(self) -> bool {
        self.to_bits().wrapping_sub(1) < Self::INFINITY.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_is_positive_where_its_f32_is() {
        for x in (0..=u16::MAX).map(bf16::from_bits) {
            assert_eq!(x.is_positive(), x.widen() > 0.0, "{x}");
        }
    }

    /// Around every bf16: itself, the halves beside it, and their neighbours.
    #[test]
    fn an_f32_is_rounded_as_ieee_754_says() {
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                let (ours, theirs) = (bf16::narrow(x), bf16::from_f32(x));
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{x}");
            }
        }
    }
}
