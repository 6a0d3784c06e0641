//! The transform for processors with AVX2: all eight columns at once, then all eight rows.

use std::arch::x86_64::__m256i;

use pulp::cast;
use pulp::x86::V3;

use super::{
    CONST_BITS, Coefficients, FIRST_SHIFT, INNER, ODD_0, ODD_1, ODD_2, ODD_3, OUTER, SECOND_SHIFT,
    SHARED_A, SHARED_B, Transform,
};

impl Transform for V3 {
    #[inline(always)]
    fn samples(self, coefficients: &Coefficients, steps: &Coefficients) -> [[u8; 8]; 8] {
        let coefficients: [__m256i; 4] = cast(coefficients.0);
        let steps: [__m256i; 4] = cast(steps.0);
        let pairs =
            std::array::from_fn(|i| self.avx2._mm256_mullo_epi16(coefficients[i], steps[i]));
        let rows = pass::<FIRST_SHIFT>(self, pairs);
        let columns = pass::<SECOND_SHIFT>(self, transposed(self, rows));
        bytes(self, columns)
    }
}

/// Eight one-dimensional transforms of inputs 0 and 4, 2 and 6, 7 and 1, 3 and 5, divided by 2^`SHIFT`.
#[inline(always)]
fn pass<const SHIFT: i32>(simd: V3, [x04, x26, x71, x35]: [__m256i; 4]) -> [__m256i; 8] {
    let add = |a, b| simd.avx2._mm256_add_epi32(a, b);
    let subtract = |a, b| simd.avx2._mm256_sub_epi32(a, b);
    let multiply_add = |pair, [first, second]: [i16; 2]| {
        let factors = first.cast_unsigned() as u32 | (second.cast_unsigned() as u32) << 16;
        let factors = simd.avx._mm256_set1_epi32(factors.cast_signed());
        simd.avx2._mm256_madd_epi16(pair, factors)
    };
    let half = simd.avx._mm256_set1_epi32(1 << (SHIFT - 1));

    let [low, high] = [[1, 1], [1, -1]].map(|signs| {
        // The upper half of the sum goes, and the lower one is extended.
        let sum = simd.avx2._mm256_slli_epi32::<16>(multiply_add(x04, signs));
        add(simd.avx2._mm256_srai_epi32::<{ 16 - CONST_BITS }>(sum), half)
    });
    let (outer, inner) = (multiply_add(x26, OUTER), multiply_add(x26, INNER));
    let even = [add(low, outer), add(high, inner), subtract(high, inner), subtract(low, outer)];

    let sums = simd.avx2._mm256_add_epi16(x71, x35);
    let (shared_a, shared_b) = (multiply_add(sums, SHARED_A), multiply_add(sums, SHARED_B));
    let odd = [
        add(multiply_add(x71, ODD_0), shared_b),
        add(multiply_add(x35, ODD_1), shared_a),
        add(multiply_add(x35, ODD_2), shared_b),
        add(multiply_add(x71, ODD_3), shared_a),
    ];

    let descale = |value| simd.avx2._mm256_srai_epi32::<SHIFT>(value);
    std::array::from_fn(|i| match i {
        0..4 => descale(add(even[i], odd[i])),
        _ => descale(subtract(even[7 - i], odd[7 - i])),
    })
}

/// Rows with their columns in the order of places, to the inputs of a pass over rows.
#[inline(always)]
fn transposed(simd: V3, rows: [__m256i; 8]) -> [__m256i; 4] {
    // Words of columns 0 2 7 3 and 4 6 1 5 to 0 4 2 6 7 1 3 5.
    let interleave: __m256i = cast([[0_u8, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]; 2]);
    let [a, b, c, d] = std::array::from_fn(|i| {
        // The half of row i that is still in the upper lane changes places with one of row i + 4.
        let both = simd.avx2._mm256_packs_epi32(rows[i], rows[i + 4]);
        let both = simd.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(both);
        simd.avx2._mm256_shuffle_epi8(both, interleave)
    });
    let ab = [simd.avx2._mm256_unpacklo_epi32(a, b), simd.avx2._mm256_unpackhi_epi32(a, b)];
    let cd = [simd.avx2._mm256_unpacklo_epi32(c, d), simd.avx2._mm256_unpackhi_epi32(c, d)];
    [
        simd.avx2._mm256_unpacklo_epi64(ab[0], cd[0]),
        simd.avx2._mm256_unpackhi_epi64(ab[0], cd[0]),
        simd.avx2._mm256_unpacklo_epi64(ab[1], cd[1]),
        simd.avx2._mm256_unpackhi_epi64(ab[1], cd[1]),
    ]
}

/// Columns to rows of samples.
#[inline(always)]
fn bytes(simd: V3, columns: [__m256i; 8]) -> [[u8; 8]; 8] {
    let transpose: __m256i = cast([[0_u8, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]; 2]);
    let center = simd.avx._mm256_set1_epi8(i8::MIN);
    // Rows 0 to 3 in the lower lane, 4 to 7 in the upper one; four columns of each.
    let [left, right] = [0, 4].map(|first| {
        let words =
            [first, first + 2].map(|i| simd.avx2._mm256_packs_epi32(columns[i], columns[i + 1]));
        let bytes = simd.avx2._mm256_packs_epi16(words[0], words[1]);
        simd.avx2._mm256_shuffle_epi8(simd.avx2._mm256_xor_si256(bytes, center), transpose)
    });
    let even = simd.avx2._mm256_unpacklo_epi32(left, right);
    let odd = simd.avx2._mm256_unpackhi_epi32(left, right);
    cast([
        simd.avx2._mm256_permute2x128_si256::<0x20>(even, odd),
        simd.avx2._mm256_permute2x128_si256::<0x31>(even, odd),
    ])
}
