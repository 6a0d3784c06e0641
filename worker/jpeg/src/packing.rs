//! One block of coefficients as a few bytes that are read without a look at single bits.
//!
//! ```text
//! mask u64    bit b: the coefficient that PLACES[b] names is there, that is, not 0
//!             bit 0: values are wide (the DC coefficient, whose bit it would be, is always there)
//! DC i16
//! values      i8 each, or i16 if wide, in the order of their bits
//! ```
//!
//! Bytes of the mask are rows of the block, in the order in which [`place`](crate::idct::place) has
//! them, so that the vector code expands a row by one look-up and finds it where the transform wants it.

#[cfg(target_arch = "x86_64")]
mod avx2;

use crate::blocks::Block;
use crate::idct::Coefficients;
use crate::processor::Portable;

/// Bytes before the values.
pub(crate) const HEAD: usize = 10;
/// Values of a block that is not wide, and what a look at the last of them may see beyond.
pub(crate) const VALUES: usize = 64 + 8;
/// Bytes that must follow the last block.
pub(crate) const PADDING: usize = VALUES;

const WIDE: u64 = 1;

/// Where the coefficient of each bit is kept.
const PLACES: [u8; 64] = {
    let mut places = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        // Two rows by turns are a pair of 16 places.
        let (pair, second, column) = (bit / 16, bit / 8 % 2, bit % 8);
        places[bit] = (16 * pair + 2 * column + second) as u8;
        bit += 1;
    }
    places
};

/// A way to pack the coefficients of a block behind its DC; all of them give the same.
pub(crate) trait Pack: Copy {
    /// Puts the values of a mask without bit 0 where they belong, and zeros elsewhere.
    fn expand(self, mask: u64, values: &[u8; VALUES]) -> Coefficients;

    /// The mask of a block without DC and its values, or `None` if they need more than 8 bits.
    fn compress(self, coefficients: &Coefficients, values: &mut [u8; VALUES]) -> Option<u64>;
}

impl Pack for Portable {
    #[inline(always)]
    fn expand(self, mask: u64, values: &[u8; VALUES]) -> Coefficients {
        let mut coefficients = [0; 64];
        for (bit, &value) in bits(mask).zip(values) {
            coefficients[usize::from(PLACES[bit])] = value.cast_signed().into();
        }
        coefficients
    }

    #[inline(always)]
    fn compress(self, coefficients: &Coefficients, values: &mut [u8; VALUES]) -> Option<u64> {
        let mask = mask(coefficients);
        for (bit, value) in bits(mask).zip(values) {
            *value = i8::try_from(coefficients[usize::from(PLACES[bit])]).ok()?.cast_unsigned();
        }
        Some(mask)
    }
}

/// Which coefficients are not 0.
fn mask(coefficients: &Coefficients) -> u64 {
    let bit = |bit: usize| u64::from(coefficients[usize::from(PLACES[bit])] != 0) << bit;
    (0..64).map(bit).sum()
}

/// The bits that are set, lowest first.
fn bits(mask: u64) -> impl Iterator<Item = usize> {
    let rest = |mask: &u64| Some(mask & (mask - 1));
    std::iter::successors(Some(mask), rest)
        .take(mask.count_ones() as usize)
        .map(|mask| mask.trailing_zeros() as usize)
}

/// Bytes of a block with this mask.
#[inline(always)]
fn len(mask: u64) -> usize {
    HEAD + (((mask >> 1).count_ones() as usize) << (mask & WIDE))
}

/// Goes past the first block of `bytes`; `None` where [`PADDING`] is missing.
#[inline(always)]
pub(crate) fn skip(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(len(u64::from_le_bytes(*bytes.first_chunk()?))..)
}

/// Reads the first block of `bytes` and goes past it; `None` where [`PADDING`] is missing.
#[inline(always)]
pub(crate) fn read<'a>(bytes: &'a [u8], pack: impl Pack, block: &mut Block) -> Option<&'a [u8]> {
    let head: &[u8; HEAD] = bytes.first_chunk()?;
    let mask = u64::from_le_bytes(*head.first_chunk()?);
    let dc = i16::from_le_bytes(*head.last_chunk()?);
    let values = &bytes[HEAD..];
    let coefficients = block.coefficients_mut();
    if mask & WIDE == 0 {
        *coefficients = pack.expand(mask, values.first_chunk()?);
    } else {
        read_wide(mask & !WIDE, values, coefficients);
    }
    coefficients[0] = dc;
    bytes.get(len(mask)..)
}

/// What is missing of the values is 0.
#[cold]
#[inline(never)]
fn read_wide(mask: u64, values: &[u8], coefficients: &mut Coefficients) {
    *coefficients = [0; 64];
    for (bit, value) in bits(mask).zip(values.as_chunks().0) {
        coefficients[usize::from(PLACES[bit])] = i16::from_le_bytes(*value);
    }
}

/// Appends a block.
#[inline(always)]
pub(crate) fn write(block: &Block, pack: impl Pack, bytes: &mut Vec<u8>) {
    let mut coefficients = *block.coefficients();
    let dc = std::mem::take(&mut coefficients[0]);
    let mut packed = [0; HEAD + VALUES];
    let (head, values) = packed.split_first_chunk_mut::<HEAD>().expect("a head and values");
    let values = values.first_chunk_mut().expect("a head and values");
    let Some(mask) = pack.compress(&coefficients, values) else {
        return write_wide(dc, &coefficients, bytes);
    };
    *head = self::head(mask, dc);
    bytes.extend_from_slice(&packed[..len(mask)]);
}

#[cold]
#[inline(never)]
fn write_wide(dc: i16, coefficients: &Coefficients, bytes: &mut Vec<u8>) {
    let mask = mask(coefficients);
    bytes.extend(head(mask | WIDE, dc));
    bytes.extend(bits(mask).flat_map(|bit| coefficients[usize::from(PLACES[bit])].to_le_bytes()));
}

#[inline(always)]
fn head(mask: u64, dc: i16) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&mask.to_le_bytes());
    head[8..].copy_from_slice(&dc.to_le_bytes());
    head
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks as they occur, and blocks with values of all sizes.
    pub(crate) fn blocks() -> impl Strategy<Value = Coefficients> {
        let small = prop_oneof![6 => Just(0_i16), 3 => -128..128_i16];
        let any = prop_oneof![3 => Just(0_i16), 1 => any::<i16>()];
        let block = |one| prop::collection::vec(one, 64).prop_map(|all| all.try_into().unwrap());
        prop_oneof![3 => block(small.boxed()), 1 => block(any.boxed())]
    }

    proptest! {
        #[test]
        fn a_block_comes_back_from_as_many_bytes_as_its_mask_says(
            coefficients in blocks(), before in blocks(), rest: u8
        ) {
            let mut block = Block::ZERO;
            *block.coefficients_mut() = coefficients;
            let mut bytes = Vec::new();
            write(&block, Portable, &mut bytes);
            let end = bytes.len();
            bytes.resize(end + PADDING, rest);
            *block.coefficients_mut() = before;
            let left = read(&bytes, Portable, &mut block).unwrap();
            prop_assert_eq!(*block.coefficients(), coefficients);
            prop_assert_eq!(left, &bytes[end..]);
            prop_assert_eq!(skip(&bytes).unwrap(), left);
        }

        #[test]
        fn any_bytes_are_a_block_or_too_short_for_one(
            bytes in prop::collection::vec(any::<u8>(), 0..4 * VALUES)
        ) {
            let (mut block, skipped) = (Block::ZERO, skip(&bytes));
            match read(&bytes, Portable, &mut block) {
                Some(left) => prop_assert_eq!(Some(left), skipped),
                None => prop_assert!(bytes.len() < HEAD + 2 * VALUES),
            }
        }
    }
}
