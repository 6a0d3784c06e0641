//! Packing for processors with AVX2: a row of eight coefficients at a time, without a branch.

use std::arch::x86_64::__m128i;

use pulp::cast;
use pulp::x86::V3;

use super::{Pack, VALUES};
use crate::idct::Coefficients;

/// By the mask of a row: which of its values goes to each column.
const EXPAND: [i64; 256] = controls(true);

/// The inverse: which column each value comes from.
const COMPRESS: [i64; 256] = controls(false);

/// Bytes of a shuffle, for every mask of a row; 0x80 takes none and gives 0.
const fn controls(by_column: bool) -> [i64; 256] {
    let mut controls = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut bytes, mut column, mut value) = ([0x80; 8], 0, 0);
        while column < 8 {
            if mask >> column & 1 == 1 {
                let (to, from) = if by_column { (column, value) } else { (value, column) };
                bytes[to] = from as u8;
                value += 1;
            }
            column += 1;
        }
        controls[mask] = i64::from_le_bytes(bytes);
        mask += 1;
    }
    controls
}

impl Pack for V3 {
    #[inline(always)]
    fn expand(self, mask: u64, values: &[u8; VALUES]) -> Coefficients {
        let starts = starts(mask);
        let zero = self.sse2._mm_setzero_si128();
        let mut pairs = [self.avx._mm256_setzero_si256(); 4];
        for (number, pair) in pairs.iter_mut().enumerate() {
            let mut rows = [zero; 2];
            for (second, row) in rows.iter_mut().enumerate() {
                let shift = 16 * number + 8 * second;
                let row_values = &values[start(starts, shift)..].first_chunk().expect("as padded");
                let control = EXPAND[usize::from((mask >> shift) as u8)];
                *row = shuffled(self, i64::from_le_bytes(**row_values), control);
            }
            let by_turns = self.sse2._mm_unpacklo_epi8(rows[0], rows[1]);
            *pair = self.avx2._mm256_cvtepi8_epi16(by_turns);
        }
        cast(pairs)
    }

    #[inline(always)]
    fn compress(self, coefficients: &Coefficients, values: &mut [u8; VALUES]) -> Option<u64> {
        // Even bytes, which are one row, then odd ones, the other.
        const ROWS: [u8; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15];
        let halves: [[__m128i; 2]; 4] = cast(*coefficients);
        let mut mask = 0;
        let mut rows = [0_i64; 8];
        for (number, [low, high]) in halves.into_iter().enumerate() {
            let bytes = self.sse2._mm_packs_epi16(low, high);
            let wide: [__m128i; 2] = cast(self.avx2._mm256_cvtepi8_epi16(bytes));
            let same_low = self.sse2._mm_cmpeq_epi16(wide[0], low);
            let same_high = self.sse2._mm_cmpeq_epi16(wide[1], high);
            if self.sse2._mm_movemask_epi8(self.sse2._mm_and_si128(same_low, same_high)) != 0xFFFF {
                return None;
            }
            let bytes = self.ssse3._mm_shuffle_epi8(bytes, cast(ROWS));
            let zeros = self.sse2._mm_cmpeq_epi8(bytes, self.sse2._mm_setzero_si128());
            let there = u64::from(!self.sse2._mm_movemask_epi8(zeros).cast_unsigned() as u16);
            mask |= there << (16 * number);
            [rows[2 * number], rows[2 * number + 1]] = cast(bytes);
        }
        let starts = starts(mask);
        for (number, row) in rows.into_iter().enumerate() {
            let control = COMPRESS[usize::from((mask >> (8 * number)) as u8)];
            let [packed, _]: [[u8; 8]; 2] = cast(shuffled(self, row, control));
            let place = &mut values[start(starts, 8 * number)..];
            *place.first_chunk_mut().expect("as padded") = packed;
        }
        Some(mask)
    }
}

/// The number of bits below each byte of the mask, as bytes.
#[inline(always)]
fn starts(mask: u64) -> u64 {
    const EVERY_BYTE: u64 = u64::MAX / 0xFF;
    const ODD_BITS: u64 = 0x55 * EVERY_BYTE;
    const ODD_PAIRS: u64 = 0x33 * EVERY_BYTE;
    const ODD_NIBBLES: u64 = 0x0F * EVERY_BYTE;
    let of_two = mask - ((mask >> 1) & ODD_BITS);
    let of_four = (of_two & ODD_PAIRS) + ((of_two >> 2) & ODD_PAIRS);
    let of_eight = (of_four + (of_four >> 4)) & ODD_NIBBLES;
    of_eight.wrapping_mul(EVERY_BYTE) << 8
}

/// One of the [`starts`], which are below 64.
#[inline(always)]
fn start(starts: u64, shift: usize) -> usize {
    (starts >> shift & 63) as usize
}

#[inline(always)]
fn shuffled(simd: V3, bytes: i64, control: i64) -> __m128i {
    let [bytes, control] =
        [simd.sse2._mm_set_epi64x(0, bytes), simd.sse2._mm_set_epi64x(0, control)];
    simd.ssse3._mm_shuffle_epi8(bytes, control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packing::tests::blocks;
    use crate::processor::Portable;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn vectors_expand_any_bytes_to_the_same(
            mask: u64, thinner: u64, values in prop::collection::vec(any::<u8>(), VALUES)
        ) {
            let simd = V3::try_new().expect("this test needs AVX2");
            let (mask, values) = (mask & thinner & !1, values.first_chunk().unwrap());
            prop_assert_eq!(simd.expand(mask, values), Portable.expand(mask, values));
        }

        #[test]
        fn vectors_pack_to_the_same(mut block in blocks()) {
            let simd = V3::try_new().expect("this test needs AVX2");
            block[0] = 0;
            let (mut ours, mut theirs) = ([0; VALUES], [0; VALUES]);
            let mask = simd.compress(&block, &mut ours);
            prop_assert_eq!(mask, Portable.compress(&block, &mut theirs));
            let values = mask.map_or(0, |mask| mask.count_ones() as usize);
            prop_assert_eq!(&ours[..values], &theirs[..values]);
        }
    }
}
