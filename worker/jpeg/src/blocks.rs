//! Entropy decoding of one block of 64 coefficients (T.81, F.2.2).

use crate::bits::Bits;
use crate::huffman::{END_OF_BLOCK, Table};

/// Where the coefficients lie in the order of the file; positions past the last go to waste.
const NATURAL: [u8; 256] = {
    let mut natural = [64; 256];
    let (mut row, mut column, mut index) = (0, 0, 0);
    while index < 64 {
        natural[index] = 8 * row + column;
        // Up and right on even diagonals, down and left on odd ones, turning at the edges.
        (row, column) = match ((row + column) % 2, row, column) {
            (0, row, 7) => (row + 1, 7),
            (0, 0, column) => (0, column + 1),
            (0, row, column) => (row - 1, column + 1),
            (_, 7, column) => (7, column + 1),
            (_, row, 0) => (row + 1, 0),
            (_, row, column) => (row + 1, column - 1),
        };
        index += 1;
    }
    natural
};

/// The natural index (8 · row + column) of a position in the order of the file.
pub(crate) fn natural(position: usize) -> usize {
    usize::from(NATURAL[position])
}

/// Coefficients of a block, before dequantization, at their natural index.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Block {
    /// 64 coefficients and a place for those that no block has; as long as an index can be.
    coefficients: [i16; 256],
}

impl Block {
    pub(crate) const ZERO: Self = Self { coefficients: [0; 256] };

    /// The coefficients, row by row.
    #[inline(always)]
    pub(crate) fn rows(&self) -> &[[i16; 8]; 8] {
        let (rows, _) = self.coefficients.as_chunks().0.split_first_chunk().expect("256 > 64");
        rows
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, position: usize, value: i16) {
        // Wraps to the type that indexes the table without a check; no position is that high.
        self.coefficients[usize::from(NATURAL[usize::from(position as u8)])] = value;
    }
}

/// Decodes the DC coefficient: the difference from the `last` one of its component.
#[inline(always)]
pub(crate) fn read_dc(bits: &mut Bits<'_>, table: &Table, last: &mut i16) -> Option<()> {
    bits.refill();
    let entry = table.look_up(bits.peek());
    let difference = if entry.is_slow() {
        table.decode_slowly(bits)?.1
    } else {
        bits.consume(entry.bits());
        entry.value()
    };
    *last = last.wrapping_add(difference);
    Some(())
}

/// Decodes a block behind its DC coefficient; `None` if a code or its run is impossible.
///
/// Follows [`read_dc`], which leaves enough bits for the first look-ups.
#[inline(always)]
pub(crate) fn read_ac(
    bits: &mut Bits<'_>,
    table: &Table,
    mut put: impl FnMut(usize, i16),
) -> Option<()> {
    let mut position = 1;
    'block: loop {
        // With the difference before them at most 4 · SIGHT bits.
        for _ in 0..3 {
            position = read_symbols(bits, table, position, &mut put)?;
            if position >= 64 {
                break 'block;
            }
        }
        bits.refill();
    }
    // Either the last coefficient or an end of block; a run that leads between the two is damage.
    (position == 64 || position > END_OF_BLOCK).then_some(())
}

/// Decodes one or two symbols that start at `position`; returns the position behind them.
#[inline(always)]
fn read_symbols(
    bits: &mut Bits<'_>,
    table: &Table,
    position: usize,
    put: &mut impl FnMut(usize, i16),
) -> Option<usize> {
    let entry = table.look_up(bits.peek());
    if entry.is_slow() {
        let (run, value) = table.decode_slowly(bits)?;
        put(position + run, value);
        return Some(position + run + 1);
    }
    let before = *bits;
    bits.consume(entry.bits());
    let first = position + entry.run();
    let second = first + entry.step();
    // In this order: without a second symbol both have the same place.
    put(second, entry.second_value());
    put(first, entry.value());
    if first >= 63 && second > first {
        // The block ended with the first symbol: the second one belongs to the next block.
        *bits = before;
        bits.consume(entry.bits_of_first());
        return Some(first + 1);
    }
    Some(second + 1)
}
