//! The transform for processors with AVX2: all eight columns at once, then all eight rows.
//!
//! No closures and no `map`: the library's functions around them are compiled
//! for any processor, and the instructions in them would become calls.

use std::arch::x86_64::__m256i;

use pulp::cast;
use pulp::x86::V3;

use super::{
    CONST_BITS, Coefficients, FIRST_SHIFT, INNER, ODD_0, ODD_1, ODD_2, ODD_3, OUTER, PASS1_BITS,
    SECOND_SHIFT, SHARED_A, SHARED_B, Transform,
};
use crate::processor::Portable;

impl Transform for V3 {
    #[inline(always)]
    fn samples(self, coefficients: &Coefficients, steps: &Coefficients) -> [[u8; 8]; 8] {
        let factors: [__m256i; 4] = cast(*steps);
        let mut pairs: [__m256i; 4] = cast(*coefficients);
        for i in 0..4 {
            pairs[i] = self.avx2._mm256_mullo_epi16(pairs[i], factors[i]);
        }
        if is_extreme(self, pairs[0]) {
            return extreme_samples(coefficients, steps);
        }
        let rows = pass::<FIRST_SHIFT>(self, pairs);
        let columns = pass::<SECOND_SHIFT>(self, transposed(self, &rows));
        bytes(self, &columns)
    }
}

/// Would some value of the first row overflow in the short cut for blocks of one row?
#[inline(always)]
fn is_extreme(simd: V3, pairs: __m256i) -> bool {
    let scaled = simd.avx2._mm256_slli_epi16::<PASS1_BITS>(pairs);
    let back = simd.avx2._mm256_srai_epi16::<PASS1_BITS>(scaled);
    simd.avx2._mm256_movemask_epi8(simd.avx2._mm256_cmpeq_epi16(back, pairs)) != -1
}

#[cold]
#[inline(never)]
fn extreme_samples(coefficients: &Coefficients, steps: &Coefficients) -> [[u8; 8]; 8] {
    Portable.samples(coefficients, steps)
}

/// Eight one-dimensional transforms of inputs 0 and 4, 2 and 6, 7 and 1, 3 and 5, divided by 2^`SHIFT`.
#[inline(always)]
fn pass<const SHIFT: i32>(simd: V3, [x04, x26, x71, x35]: [__m256i; 4]) -> [__m256i; 8] {
    let half = simd.avx._mm256_set1_epi32(1 << (SHIFT - 1));
    let low = add(simd, wrapped(simd, x04, [1, 1]), half);
    let high = add(simd, wrapped(simd, x04, [1, -1]), half);
    let outer = multiply_add(simd, x26, OUTER);
    let inner = multiply_add(simd, x26, INNER);
    let even = [
        add(simd, low, outer),
        add(simd, high, inner),
        subtract(simd, high, inner),
        subtract(simd, low, outer),
    ];

    let sums = simd.avx2._mm256_add_epi16(x71, x35);
    let shared_a = multiply_add(simd, sums, SHARED_A);
    let shared_b = multiply_add(simd, sums, SHARED_B);
    let odd = [
        add(simd, multiply_add(simd, x71, ODD_0), shared_b),
        add(simd, multiply_add(simd, x35, ODD_1), shared_a),
        add(simd, multiply_add(simd, x35, ODD_2), shared_b),
        add(simd, multiply_add(simd, x71, ODD_3), shared_a),
    ];

    let mut out = [half; 8];
    for i in 0..4 {
        out[i] = simd.avx2._mm256_srai_epi32::<SHIFT>(add(simd, even[i], odd[i]));
        out[7 - i] = simd.avx2._mm256_srai_epi32::<SHIFT>(subtract(simd, even[i], odd[i]));
    }
    out
}

/// Rows with their columns in the order of places, to the inputs of a pass over rows.
#[inline(always)]
fn transposed(simd: V3, rows: &[__m256i; 8]) -> [__m256i; 4] {
    // Words of columns 0 2 7 3 and 4 6 1 5 to 0 4 2 6 7 1 3 5.
    const INTERLEAVE: [u8; 16] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];
    let mut two_rows = [rows[0]; 4];
    for i in 0..4 {
        // One lane has half of both rows; after the permutation it has all of one.
        let packed = simd.avx2._mm256_packs_epi32(rows[i], rows[i + 4]);
        let lanes = simd.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        two_rows[i] = simd.avx2._mm256_shuffle_epi8(lanes, cast([INTERLEAVE; 2]));
    }
    let [a, b, c, d] = two_rows;
    let (ab_first, ab_last) =
        (simd.avx2._mm256_unpacklo_epi32(a, b), simd.avx2._mm256_unpackhi_epi32(a, b));
    let (cd_first, cd_last) =
        (simd.avx2._mm256_unpacklo_epi32(c, d), simd.avx2._mm256_unpackhi_epi32(c, d));
    [
        simd.avx2._mm256_unpacklo_epi64(ab_first, cd_first),
        simd.avx2._mm256_unpackhi_epi64(ab_first, cd_first),
        simd.avx2._mm256_unpacklo_epi64(ab_last, cd_last),
        simd.avx2._mm256_unpackhi_epi64(ab_last, cd_last),
    ]
}

/// Columns to rows of samples.
#[inline(always)]
fn bytes(simd: V3, columns: &[__m256i; 8]) -> [[u8; 8]; 8] {
    // Rows 0 to 3 in the lower lane, 4 to 7 in the upper one.
    let (left, right) = (four_columns(simd, columns, 0), four_columns(simd, columns, 4));
    let first = simd.avx2._mm256_unpacklo_epi32(left, right);
    let last = simd.avx2._mm256_unpackhi_epi32(left, right);
    cast([
        simd.avx2._mm256_permute2x128_si256::<0x20>(first, last),
        simd.avx2._mm256_permute2x128_si256::<0x31>(first, last),
    ])
}

#[inline(always)]
fn four_columns(simd: V3, columns: &[__m256i; 8], first: usize) -> __m256i {
    const TRANSPOSE: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
    let low = simd.avx2._mm256_packs_epi32(columns[first], columns[first + 1]);
    let high = simd.avx2._mm256_packs_epi32(columns[first + 2], columns[first + 3]);
    let signed = simd.avx2._mm256_packs_epi16(low, high);
    let samples = simd.avx2._mm256_xor_si256(signed, simd.avx._mm256_set1_epi8(i8::MIN));
    simd.avx2._mm256_shuffle_epi8(samples, cast([TRANSPOSE; 2]))
}

/// The sum of a pair with these signs, in 16 bits, as a fixed-point number.
#[inline(always)]
fn wrapped(simd: V3, pair: __m256i, signs: [i16; 2]) -> __m256i {
    let upper = simd.avx2._mm256_slli_epi32::<16>(multiply_add(simd, pair, signs));
    simd.avx2._mm256_srai_epi32::<{ 16 - CONST_BITS }>(upper)
}

#[inline(always)]
fn multiply_add(simd: V3, pair: __m256i, factors: [i16; 2]) -> __m256i {
    simd.avx2._mm256_madd_epi16(pair, cast([factors; 8]))
}

#[inline(always)]
fn add(simd: V3, a: __m256i, b: __m256i) -> __m256i {
    simd.avx2._mm256_add_epi32(a, b)
}

#[inline(always)]
fn subtract(simd: V3, a: __m256i, b: __m256i) -> __m256i {
    simd.avx2._mm256_sub_epi32(a, b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::idct::place;

    /// Mostly coefficients as they occur, some as large as can be.
    fn coefficients() -> impl Strategy<Value = Coefficients> {
        let one = prop_oneof![6 => Just(0_i16), 3 => -40..40_i16, 1 => any::<i16>()];
        (prop::collection::vec(one, 64), 0..4).prop_map(|(values, rows)| {
            let mut coefficients: Coefficients = values.try_into().unwrap();
            // Sometimes one row, of which there is a short cut.
            (8..64).filter(|_| rows == 0).for_each(|at| coefficients[place(at / 8, at % 8)] = 0);
            coefficients
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn vectors_give_the_same_samples(block in coefficients(), steps in coefficients()) {
            let simd = V3::try_new().expect("this test needs AVX2");
            prop_assert_eq!(simd.samples(&block, &steps), Portable.samples(&block, &steps));
        }
    }
}
