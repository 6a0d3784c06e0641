//! Entropy decoding of one block of 64 coefficients (T.81, F.2.2).

use crate::bits::Bits;
use crate::huffman::{END_OF_BLOCK, Table};
use crate::idct::{Coefficients, place};

/// Where each coefficient of the file goes, from [`place`]; those beyond the last go to waste.
const PLACES: [u8; 256] = {
    let mut places = [64; 256];
    let (mut row, mut column, mut index) = (0, 0, 0);
    while index < 64 {
        places[index] = place(row, column) as u8;
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
    places
};

/// Sorts what the file holds in the order of its diagonals.
pub(crate) fn placed(diagonal: &[i16; 64]) -> Coefficients {
    let mut placed = [0; 64];
    for (value, place) in diagonal.iter().zip(PLACES) {
        placed[usize::from(place)] = *value;
    }
    placed
}

/// A block before dequantization.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Block {
    /// 64 coefficients and waste, as long as an index can be.
    values: [i16; 256],
}

impl Block {
    pub(crate) const ZERO: Self = Self { values: [0; 256] };

    /// Back to zeros, apart from the waste.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        *self.coefficients_mut() = [0; 64];
    }

    #[inline(always)]
    pub(crate) fn coefficients(&self) -> &Coefficients {
        self.values.first_chunk().expect("64 of 256")
    }

    #[inline(always)]
    pub(crate) fn coefficients_mut(&mut self) -> &mut Coefficients {
        self.values.first_chunk_mut().expect("64 of 256")
    }

    /// Sets the coefficient at a position in the file.
    #[inline(always)]
    pub(crate) fn put(&mut self, position: u8, value: i16) {
        // Neither type can be out of bounds, so there is no check.
        self.values[usize::from(PLACES[usize::from(position)])] = value;
    }
}

/// Decodes the DC coefficient: the difference from the `last` one of its component.
#[inline(always)]
pub(crate) fn read_dc<'a>(mut bits: Bits<'a>, table: &Table, last: &mut i16) -> Option<Bits<'a>> {
    bits.refill();
    let entry = table.look_up(bits.peek())?;
    *last = last.wrapping_add(entry.value(bits.peek()));
    bits.consume(entry.bits());
    Some(bits)
}

/// Decodes a block behind its DC coefficient; `None` if a code or its run is impossible.
#[inline(always)]
pub(crate) fn read_ac<'a>(
    mut bits: Bits<'a>,
    table: &Table,
    mut put: impl FnMut(u8, i16),
) -> Option<Bits<'a>> {
    let mut position = 1_u8;
    'block: loop {
        bits.refill();
        // Two symbols of 16 + 12 bits are what one refill is enough for.
        for _ in 0..2 {
            let entry = table.look_up(bits.peek())?;
            // At most 63 + 15 + 128.
            let first = position.wrapping_add(entry.run());
            let second = first.wrapping_add(entry.step());
            // In this order: without a second symbol both have the same place.
            put(second, entry.second_value());
            put(first, entry.value(bits.peek()));
            if second >= 63 {
                // A first symbol at the last coefficient is all that this block takes. One that is an end
                // of block has no second. (Which of two symbols ends a block is as good as random, so
                // it is important that no branch depends on that.)
                let (last, bits_used) = if (63..END_OF_BLOCK).contains(&first) {
                    (first, entry.bits_of_first())
                } else {
                    (second, entry.bits())
                };
                position = last + 1;
                bits.consume(bits_used);
                break 'block;
            }
            position = second + 1;
            bits.consume(entry.bits());
        }
    }
    // Either the last coefficient or an end of block; a run that leads between the two is damage.
    (position == 64 || position > END_OF_BLOCK).then_some(bits)
}
