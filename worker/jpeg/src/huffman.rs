//! Huffman tables, as look-ups that give decoded coefficients.
//!
//! A code is followed by the bits of a value, so looking at [`SIGHT`] bits often
//! settles both, and the next code with its value too. Decoding is one chain of
//! dependent look-ups and its speed is their number.

/// Bits that a look-up sees.
pub(crate) const SIGHT: u32 = 11;

/// Added to the position by the end of a block: beyond any position that a run can reach.
pub(crate) const END_OF_BLOCK: u8 = 127;

/// What the symbols of a table mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A symbol is the size of a difference.
    Dc,
    /// A symbol is a run of zeros and the size of what follows it.
    Ac,
}

impl Kind {
    /// Bits of the largest value. The standard allows 11 and 10 (T.81, F.1.2); libjpeg is as lenient
    /// with DC. Two AC symbols must fit into what [`Bits::refill`](crate::bits::Bits::refill) loads.
    fn largest_size(self) -> u8 {
        match self {
            Self::Dc => 15,
            Self::Ac => 12,
        }
    }
}

/// One or two decoded symbols; 0 where the code is longer than [`SIGHT`].
///
/// ```text
/// bits  0..6   bits of all symbols       32..40  zeros before the first value
///       8..14  bits of the first code    40..48  from the first to the second value
///      16..22  63 - bits of its value    48..64  the second value
/// ```
///
/// A shift takes its count from the lowest six bits and a position is 8 bits long, so that no field
/// needs a mask once it has been rotated into place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    fn one(length: u32, run: u8, size: u32) -> Self {
        let (code, value) = (u64::from(length), u64::from(63 - size));
        Self(u64::from(length + size) | code << 8 | value << 16 | u64::from(run) << 32)
    }

    /// Appends a symbol whose value is known.
    fn with_second(self, second: Self, value: i16) -> Self {
        let step = u64::from(second.run() + 1);
        let value = u64::from(value.cast_unsigned());
        Self((self.0 | step << 40 | value << 48) + (second.0 & 63))
    }

    /// Is the code out of sight?
    #[inline(always)]
    pub(crate) fn is_unknown(self) -> bool {
        self.0 == 0
    }

    /// Bits of all symbols, in the lowest six bits.
    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// Bits of the first of two symbols.
    pub(crate) fn bits_of_first(self) -> u64 {
        (self.0 >> 8 & 63) + (63 - (self.0 >> 16 & 63))
    }

    /// Zeros before the first value; [`END_OF_BLOCK`] at the end.
    #[inline(always)]
    pub(crate) fn run(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// From the first to the second value; 0 without a second.
    #[inline(always)]
    pub(crate) fn step(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// The first value, from the bits that were looked up (T.81, F.2.2.1: EXTEND).
    ///
    /// A value that starts with 1 stands for itself. One that starts with 0 stands for what it is
    /// with ones before it, in two's complement, plus 1.
    #[inline(always)]
    pub(crate) fn value(self, bits: u64) -> i16 {
        let value = (bits << (self.0.rotate_right(8) & 63)).cast_signed();
        let extended = ((value >> 1) ^ i64::MIN) >> (self.0.rotate_right(16) & 63);
        (extended - (extended >> 63)) as i16
    }

    /// The second value.
    #[inline(always)]
    pub(crate) fn second_value(self) -> i16 {
        (self.0 >> 48) as i16
    }
}

/// A table ready for decoding.
#[derive(Debug)]
pub(crate) struct Table {
    kind: Kind,
    entries: Box<[Entry; 1 << SIGHT]>,
    /// The smallest 16 bits that are above all codes of this length, by length.
    limits: [u32; 17],
    /// What to add to a code of this length for the index of its symbol, by length.
    offsets: [usize; 17],
    symbols: [u8; 256],
    /// Counts and symbols as they stood in the file.
    definition: Vec<u8>,
}

impl Table {
    /// A table without codes.
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            entries: Box::new([Entry::default(); 1 << SIGHT]),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: [0; 256],
            definition: Vec::new(),
        }
    }

    /// Takes over a definition (T.81, B.2.4.2): 16 counts, then the symbols in order of their codes.
    ///
    /// Most encoders write the same tables into every file, so the last one is recognised.
    pub(crate) fn define(&mut self, counts: &[u8; 16], symbols: &[u8]) -> Result<(), &'static str> {
        if self.definition.split_first_chunk() == Some((counts, symbols)) {
            return Ok(());
        }
        self.definition.clear();
        let largest = symbols.iter().map(|&symbol| match self.kind {
            Kind::Dc => symbol,
            Kind::Ac => symbol & 15,
        });
        if largest.max() > Some(self.kind.largest_size()) {
            return Err("a Huffman table has values larger than those of 8-bit samples");
        }
        let mut singles = [(0_u8, 0_u8); 1 << SIGHT];
        let (mut code, mut first) = (0_usize, 0);
        for (length, &count) in (1..=16_usize).zip(counts) {
            let next = code + usize::from(count);
            // No code consists of ones alone.
            if next >= 1 << length {
                return Err("a Huffman table has more codes than there are");
            }
            if let Some(spare) = (SIGHT as usize).checked_sub(length) {
                for (code, &symbol) in (code..next).zip(&symbols[first..]) {
                    singles[code << spare..(code + 1) << spare].fill((length as u8, symbol));
                }
            }
            self.limits[length] = (next << (16 - length)) as u32;
            self.offsets[length] = first.wrapping_sub(code);
            first += usize::from(count);
            code = next << 1;
        }
        self.symbols[..symbols.len()].copy_from_slice(symbols);
        self.fill(&singles);
        self.definition.extend_from_slice(counts);
        self.definition.extend_from_slice(symbols);
        Ok(())
    }

    fn fill(&mut self, singles: &[(u8, u8); 1 << SIGHT]) {
        let entry = |index: usize| match singles[index] {
            (0, _) => Entry::default(),
            (length, symbol) => self.single(u32::from(length), symbol),
        };
        let mut entries = [Entry::default(); 1 << SIGHT];
        for (index, slot) in entries.iter_mut().enumerate() {
            *slot = entry(index);
            let bits = slot.0 & 63;
            if self.kind == Kind::Dc || slot.is_unknown() || slot.run() == END_OF_BLOCK {
                continue;
            }
            let Some(sight) = u64::from(SIGHT).checked_sub(bits) else { continue };
            let rest = (index << bits) & ((1 << SIGHT) - 1);
            let second = entry(rest);
            if !second.is_unknown() && second.0 & 63 <= sight {
                let value = second.value((rest as u64) << (64 - SIGHT));
                *slot = slot.with_second(second, value);
            }
        }
        *self.entries = entries;
    }

    fn single(&self, length: u32, symbol: u8) -> Entry {
        let (run, size) = match (self.kind, symbol >> 4, symbol & 15) {
            (Kind::Dc, _, size) => (0, size),
            // Only sixteen zeros have no value behind them.
            (Kind::Ac, 0..15, 0) => (END_OF_BLOCK, 0),
            (Kind::Ac, run, size) => (run, size),
        };
        Entry::one(length, run, u32::from(size))
    }

    /// What the first of these bits decode to; `None` if no code matches.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> Option<Entry> {
        let entry = self.entries[(bits >> (64 - SIGHT)) as usize];
        if entry.is_unknown() { self.search(bits) } else { Some(entry) }
    }

    #[cold]
    #[inline(never)]
    fn search(&self, bits: u64) -> Option<Entry> {
        let code = (bits >> 48) as u32;
        let length = (1..=16).find(|&length| code < self.limits[length])?;
        let index = self.offsets[length].wrapping_add((code >> (16 - length)) as usize);
        Some(self.single(length as u32, *self.symbols.get(index)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes 0, 10, 110, ... up to 16 bits, for symbols 1 to 16.
    fn staircase(kind: Kind) -> Table {
        let mut table = Table::new(kind);
        let symbols: Vec<u8> =
            (1..=16).map(|symbol| if symbol > 10 { 0 } else { symbol }).collect();
        table.define(&[1; 16], &symbols).unwrap();
        table
    }

    /// These bits from the top.
    fn bits(text: &str) -> u64 {
        let digits: String = text.split(' ').collect();
        u64::from_str_radix(&digits, 2).unwrap() << (64 - digits.len())
    }

    #[test]
    fn one_look_up_gives_two_symbols_where_both_are_in_sight() {
        // Size 1 and value 1; then size 2 and 01, which stands for -2.
        let bits = bits("0 1 10 01 0");
        let entry = staircase(Kind::Ac).look_up(bits).unwrap();
        assert_eq!((entry.run(), entry.value(bits)), (0, 1));
        assert_eq!((entry.step(), entry.second_value()), (1, -2));
        assert_eq!((entry.bits() & 63, entry.bits_of_first()), (6, 2));
    }

    #[test]
    fn a_value_may_reach_beyond_the_sight_and_so_may_a_code() {
        let table = staircase(Kind::Dc);
        let (long_value, long_code) = (bits("1111111110 1000000001"), bits("1111111111111110"));
        let entry = table.look_up(long_value).unwrap();
        assert_eq!((entry.value(long_value), entry.bits() & 63), (513, 20));
        let entry = table.look_up(long_code).unwrap();
        assert_eq!((entry.value(long_code), entry.bits() & 63), (0, 16));
        assert_eq!(table.look_up(u64::MAX), None);
    }

    #[test]
    fn impossible_tables_are_refused() {
        let refused = |kind, counts: [u8; 16], symbols: &[u8]| {
            Table::new(kind).define(&counts, symbols).unwrap_err()
        };
        let mut counts = [0; 16];
        counts[0] = 2;
        assert!(refused(Kind::Ac, counts, &[1, 2]).contains("more codes than there are"));
        counts[0] = 1;
        assert!(refused(Kind::Dc, counts, &[16]).contains("larger than those of 8-bit samples"));
        assert!(refused(Kind::Ac, counts, &[0x0D]).contains("larger than those of 8-bit samples"));
    }

    #[test]
    fn the_same_definition_again_leaves_the_table_as_it_is() {
        let mut table = staircase(Kind::Ac);
        let entries = table.entries.clone();
        let definition = table.definition.clone();
        table.define(&[1; 16], &definition[16..]).unwrap();
        assert_eq!(table.entries, entries);
        let mut counts = [0; 16];
        counts[1] = 1;
        table.define(&counts, &[3]).unwrap();
        assert_eq!(table.look_up(0xF << 60), None);
    }
}
