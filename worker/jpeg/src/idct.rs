//! The inverse DCT: libjpeg's "islow" in the arithmetic of libjpeg-turbo's vector code.
//!
//! Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11
//! multiplications" (1989), with constants of 13 bits. Products are taken in
//! pairs, as processors multiply and add 16-bit numbers. Between the passes
//! values have 16 bits and saturate; sums of two inputs wrap, and so does the
//! short cut for blocks of one row. (No encoder makes coefficients for which
//! that matters, but what anyone makes should look the same everywhere.)
//!
//! Coefficients are kept in the order in which the vector code wants them:
//! rows 0 and 4, 2 and 6, 7 and 1, 3 and 5 by turns, and in each pair of rows
//! columns 0 2 7 3 4 6 1 5. Transposed, that is the same order again.

#[cfg(target_arch = "x86_64")]
mod avx2;

use crate::processor::Portable;

/// Fraction bits of the constants.
const CONST_BITS: i32 = 13;
/// Fraction bits kept between the passes.
const PASS1_BITS: i32 = 2;
/// Each pass scales by √8; the second one takes that back.
const SCALE_BITS: i32 = 3;

/// What the passes divide by, as a power of two.
const FIRST_SHIFT: i32 = CONST_BITS - PASS1_BITS;
const SECOND_SHIFT: i32 = CONST_BITS + PASS1_BITS + SCALE_BITS;

// The paper's constants times 2^13, named by their value.
const C0_298: i16 = 2_446;
const C0_390: i16 = 3_196;
const C0_541: i16 = 4_433;
const C0_765: i16 = 6_270;
const C0_899: i16 = 7_373;
const C1_175: i16 = 9_633;
const C1_501: i16 = 12_299;
const C1_847: i16 = 15_137;
const C1_961: i16 = 16_069;
const C2_053: i16 = 16_819;
const C2_562: i16 = 20_995;
const C3_072: i16 = 25_172;

// Factors of pairs of inputs, in the order of the pairs: x2 and x6.
const OUTER: [i16; 2] = [C0_541 + C0_765, C0_541];
const INNER: [i16; 2] = [C0_541, C0_541 - C1_847];
// x7 + x3 and x1 + x5.
const SHARED_A: [i16; 2] = [C1_175 - C1_961, C1_175];
const SHARED_B: [i16; 2] = [C1_175, C1_175 - C0_390];
// x7 and x1, for the first and the last of four outputs.
const ODD_0: [i16; 2] = [-C0_899, C1_501 - C0_899];
const ODD_3: [i16; 2] = [C0_298 - C0_899, -C0_899];
// x3 and x5, for the two between them.
const ODD_1: [i16; 2] = [C3_072 - C2_562, -C2_562];
const ODD_2: [i16; 2] = [-C2_562, C2_053 - C2_562];

/// Coefficients, or quantization steps, in the order described above.
pub(crate) type Coefficients = [i16; 64];

/// Where the coefficient of a row and a column is kept.
pub(crate) const fn place(row: usize, column: usize) -> usize {
    /// Number of the pair, and which one of it.
    const PLACES: [[usize; 2]; 8] =
        [[0, 0], [2, 1], [1, 0], [3, 0], [0, 1], [3, 1], [1, 1], [2, 0]];
    let ([pair, second], [slot, half]) = (PLACES[row], PLACES[column]);
    16 * pair + 8 * half + 2 * slot + second
}

/// A way to compute the transform; all of them give the same samples.
pub(crate) trait Transform: Copy {
    /// Dequantizes and transforms a block into rows of samples.
    fn samples(self, coefficients: &Coefficients, steps: &Coefficients) -> [[u8; 8]; 8];
}

impl Transform for Portable {
    #[inline(always)]
    fn samples(self, coefficients: &Coefficients, steps: &Coefficients) -> [[u8; 8]; 8] {
        let mut half_done = [[0; 8]; 8];
        let input = |row, column| {
            let at = place(row, column);
            coefficients[at].wrapping_mul(steps[at])
        };
        let one_row = (8..64).all(|at| coefficients[place(at / 8, at % 8)] == 0);
        for column in 0..8 {
            let output = if one_row {
                [input(0, column) << PASS1_BITS; 8]
            } else {
                transform::<FIRST_SHIFT>(std::array::from_fn(|row| input(row, column)))
            };
            for (row, value) in half_done.iter_mut().zip(output) {
                row[column] = value;
            }
        }
        half_done.map(|row| {
            transform::<SECOND_SHIFT>(row)
                .map(|value| (value.clamp(-128, 127) + 128).cast_unsigned() as u8)
        })
    }
}

/// The one-dimensional transform, divided by 2^`SHIFT`.
#[inline(always)]
fn transform<const SHIFT: i32>([x0, x1, x2, x3, x4, x5, x6, x7]: [i16; 8]) -> [i16; 8] {
    let [low, high] =
        [x0.wrapping_add(x4), x0.wrapping_sub(x4)].map(|sum| i32::from(sum) << CONST_BITS);
    let (outer, inner) = (multiply_add([x2, x6], OUTER), multiply_add([x2, x6], INNER));
    let even = [low + outer, high + inner, high - inner, low - outer];

    let sums = [x7.wrapping_add(x3), x1.wrapping_add(x5)];
    let (shared_a, shared_b) = (multiply_add(sums, SHARED_A), multiply_add(sums, SHARED_B));
    let odd = [
        multiply_add([x7, x1], ODD_0) + shared_b,
        multiply_add([x3, x5], ODD_1) + shared_a,
        multiply_add([x3, x5], ODD_2) + shared_b,
        multiply_add([x7, x1], ODD_3) + shared_a,
    ];

    // For inputs of 16 bits no sum passes 2.12e9.
    let mut out = [0; 8];
    for i in 0..4 {
        out[i] = descale::<SHIFT>(even[i] + odd[i]);
        out[7 - i] = descale::<SHIFT>(even[i] - odd[i]);
    }
    out
}

#[inline(always)]
fn multiply_add([a, b]: [i16; 2], [a_factor, b_factor]: [i16; 2]) -> i32 {
    i32::from(a) * i32::from(a_factor) + i32::from(b) * i32::from(b_factor)
}

/// Divides by 2^`SHIFT`, rounding, into 16 bits.
#[inline(always)]
fn descale<const SHIFT: i32>(value: i32) -> i16 {
    let rounded = (value + (1 << (SHIFT - 1))) >> SHIFT;
    rounded.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coefficient_has_a_place_of_its_own() {
        let mut places: Vec<_> = (0..64).map(|natural| place(natural / 8, natural % 8)).collect();
        places.sort_unstable();
        assert_eq!(places, (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn a_lone_dc_coefficient_is_a_flat_block() {
        let (mut block, steps) = ([0; 64], [3; 64]);
        block[place(0, 0)] = -19;
        assert_eq!(Portable.samples(&block, &steps), [[128 - 7; 8]; 8]);
    }

    #[test]
    fn the_transform_is_close_to_its_definition() {
        let (row, column) = (2_u8, 5_u8);
        let mut block = [0; 64];
        block[place(row.into(), column.into())] = 400;
        let samples = Portable.samples(&block, &[1; 64]);
        let wave = |frequency: u8, at: u8| {
            let angle = f64::from((2 * at + 1) * frequency) * std::f64::consts::PI / 16.0;
            angle.cos() / 2.0
        };
        for (y, x) in (0..8).flat_map(|y| (0..8).map(move |x| (y, x))) {
            let exact = 128.0 + 400.0 * wave(row, y) * wave(column, x);
            assert!(
                (f64::from(samples[usize::from(y)][usize::from(x)]) - exact).abs() < 0.51,
                "{y} {x}: {exact}"
            );
        }
    }
}
