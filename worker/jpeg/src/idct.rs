//! The inverse DCT: libjpeg's "islow" in the arithmetic of libjpeg-turbo's vector code.
//!
//! Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11
//! multiplications" (1989), with constants of 13 bits. Between the passes values
//! have 16 bits and saturate, sums of two inputs wrap: only coefficients that no
//! encoder makes show the difference, and these too come out as from libjpeg-turbo.

use crate::blocks::Block;

/// Fraction bits of the constants.
const CONST_BITS: i32 = 13;
/// Fraction bits kept between the passes.
const PASS1_BITS: i32 = 2;
/// Both passes scale by √8, the second one takes that back.
const SCALE_BITS: i32 = 3;

/// Eight rows of eight.
type Square<T> = [[T; 8]; 8];

/// Dequantizes and transforms a block into samples.
#[inline(always)]
pub(crate) fn inverse_dct(block: &Block, quant: &[i16; 64]) -> Square<u8> {
    let mut rows = *block.rows();
    for (row, quant) in rows.iter_mut().zip(quant.as_chunks::<8>().0) {
        for (value, quant) in row.iter_mut().zip(quant) {
            *value = value.wrapping_mul(*quant);
        }
    }
    let columns = if rows[1..].as_flattened().iter().fold(0, |all, value| all | value) == 0 {
        rows[0].map(|value| [value << PASS1_BITS; 8])
    } else {
        transposed(&pass::<{ CONST_BITS - PASS1_BITS }>(&rows))
    };
    let samples = pass::<{ CONST_BITS + PASS1_BITS + SCALE_BITS }>(&columns);
    transposed(&samples).map(|row| row.map(|value| (value.clamp(-128, 127) + 128) as u8))
}

#[inline(always)]
fn transposed<T: Copy + Default>(rows: &Square<T>) -> Square<T> {
    let mut columns = Square::default();
    for (r, row) in rows.iter().enumerate() {
        for (c, value) in row.iter().enumerate() {
            columns[c][r] = *value;
        }
    }
    columns
}

/// One-dimensional transforms of the eight columns, scaled down by `SHIFT` bits.
#[inline(always)]
fn pass<const SHIFT: i32>(rows: &Square<i16>) -> Square<i16> {
    let mut out = [[0; 8]; 8];
    for column in 0..8 {
        let transformed = transform::<SHIFT>(rows.map(|row| row[column]));
        for (row, value) in out.iter_mut().zip(transformed) {
            row[column] = value;
        }
    }
    out
}

/// No sum leaves 32 bits: for inputs of 16 bits they stay below 2.12e9.
#[inline(always)]
fn transform<const SHIFT: i32>(x: [i16; 8]) -> [i16; 8] {
    let [_, x1, x2, x3, _, x5, x6, x7] = x.map(i32::from);
    let wrapped = |a: i16, b: i16| i32::from(a.wrapping_add(b));

    // Even part, pairs of products as in a multiply-add of 16-bit numbers.
    let low = i32::from(x[0].wrapping_add(x[4])) << CONST_BITS;
    let high = i32::from(x[0].wrapping_sub(x[4])) << CONST_BITS;
    let inner = x2 * C0_541 + x6 * (C0_541 - C1_847);
    let outer = x2 * (C0_541 + C0_765) + x6 * C0_541;
    let even = [low + outer, high + inner, high - inner, low - outer];

    // Odd part.
    let (sum_a, sum_b) = (wrapped(x[7], x[3]), wrapped(x[5], x[1]));
    let shared_a = sum_a * (C1_175 - C1_961) + sum_b * C1_175;
    let shared_b = sum_a * C1_175 + sum_b * (C1_175 - C0_390);
    let odd = [
        x7 * -C0_899 + x1 * (C1_501 - C0_899) + shared_b,
        x5 * -C2_562 + x3 * (C3_072 - C2_562) + shared_a,
        x5 * (C2_053 - C2_562) + x3 * -C2_562 + shared_b,
        x7 * (C0_298 - C0_899) + x1 * -C0_899 + shared_a,
    ];

    let mut out = [0; 8];
    for i in 0..4 {
        out[i] = descaled::<SHIFT>(even[i] + odd[i]);
        out[7 - i] = descaled::<SHIFT>(even[i] - odd[i]);
    }
    out
}

/// Divides by 2^`SHIFT`, rounding, into 16 bits.
#[inline(always)]
fn descaled<const SHIFT: i32>(value: i32) -> i16 {
    let rounded = (value + (1 << (SHIFT - 1))) >> SHIFT;
    rounded.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

// The paper's constants times 2^13, named by their value.
const C0_298: i32 = 2_446;
const C0_390: i32 = 3_196;
const C0_541: i32 = 4_433;
const C0_765: i32 = 6_270;
const C0_899: i32 = 7_373;
const C1_175: i32 = 9_633;
const C1_501: i32 = 12_299;
const C1_847: i32 = 15_137;
const C1_961: i32 = 16_069;
const C2_053: i32 = 16_819;
const C2_562: i32 = 20_995;
const C3_072: i32 = 25_172;
