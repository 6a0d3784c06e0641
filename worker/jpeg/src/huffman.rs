//! Huffman tables, as look-ups that give decoded coefficients.
//!
//! A code is followed by the bits of a value, so looking at [`SIGHT`] bits often
//! settles both, and the next code with its value too. Decoding is one chain of
//! dependent look-ups and its speed is their number.

use crate::bits::Bits;

/// Bits that a look-up sees.
pub(crate) const SIGHT: u32 = 11;

/// Added to the position by the end of a block: beyond any position that a run can reach.
pub(crate) const END_OF_BLOCK: usize = 127;

/// What the symbols of a table mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A symbol is the size of a difference.
    Dc,
    /// A symbol is a run of zeros and the size of what follows it.
    Ac,
}

/// One or two decoded symbols, or a pointer to the slow way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    fn one(bits: u32, run: usize, value: i16) -> Self {
        Self(u64::from(bits) | (run as u64) << 16 | u64::from(value.cast_unsigned()) << 32)
    }

    fn with_second(self, second: Self) -> Self {
        let step = second.run() as u64 + 1;
        let value = u64::from(second.value().cast_unsigned());
        let bits = u64::from(self.bits() + second.bits());
        Self(self.0 >> 6 << 6 | bits | u64::from(self.bits()) << 8 | step << 24 | value << 48)
    }

    /// A code of which the value lies out of sight.
    fn code_only(length: u8, symbol: u8) -> Self {
        Self(u64::from(length) << 8 | u64::from(symbol) << 16)
    }

    /// Must [`Table::decode_slowly`] go on from here?
    #[inline(always)]
    pub(crate) fn is_slow(self) -> bool {
        self.0 & 63 == 0
    }

    /// Bits of all symbols.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        (self.0 & 63) as u32
    }

    /// Bits of the first of two symbols.
    #[inline(always)]
    pub(crate) fn bits_of_first(self) -> u32 {
        (self.0 >> 8 & 63) as u32
    }

    /// Zeros before the first value; [`END_OF_BLOCK`] at the end.
    #[inline(always)]
    pub(crate) fn run(self) -> usize {
        (self.0 >> 16 & 127) as usize
    }

    /// The first value.
    #[inline(always)]
    pub(crate) fn value(self) -> i16 {
        (self.0 >> 32) as i16
    }

    /// From the first to the second value; 0 without a second.
    #[inline(always)]
    pub(crate) fn step(self) -> usize {
        (self.0 >> 24 & 255) as usize
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
        if self.kind == Kind::Dc && symbols.iter().any(|&symbol| symbol > 15) {
            return Err("a Huffman table has a DC value of more than 15 bits");
        }
        let mut singles = [(0_u8, 0_u8); 1 << SIGHT];
        let (mut code, mut first) = (0_usize, 0);
        for (length, &count) in (1..=16_usize).zip(counts) {
            let next = code + usize::from(count);
            if next > 1 << length {
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
        let in_sight = |index: usize, sight: u32| {
            let (length, symbol) = singles[index];
            let (run, size) = self.meaning(symbol);
            let bits = u32::from(length) + size;
            // The bits of the value end where the sight of this symbol ends.
            (length > 0 && bits <= sight).then(|| {
                let value = (index >> (SIGHT - bits)) as u64;
                Entry::one(bits, run, signed(value & ((1 << size) - 1), size))
            })
        };
        let mut entries = [Entry::default(); 1 << SIGHT];
        for (index, entry) in entries.iter_mut().enumerate() {
            let (length, symbol) = singles[index];
            *entry = in_sight(index, SIGHT).unwrap_or(Entry::code_only(length, symbol));
            if self.kind == Kind::Ac && !entry.is_slow() && entry.run() != END_OF_BLOCK {
                let rest = index << entry.bits() & ((1 << SIGHT) - 1);
                if let Some(second) = in_sight(rest, SIGHT - entry.bits()) {
                    *entry = entry.with_second(second);
                }
            }
        }
        *self.entries = entries;
    }

    /// Zeros before the value, and its size in bits.
    fn meaning(&self, symbol: u8) -> (usize, u32) {
        match (self.kind, symbol >> 4, symbol & 15) {
            (Kind::Dc, _, size) => (0, u32::from(size)),
            // Only sixteen zeros have no value behind them.
            (Kind::Ac, 0..15, 0) => (END_OF_BLOCK, 0),
            (Kind::Ac, run, size) => (usize::from(run), u32::from(size)),
        }
    }

    /// What the next [`SIGHT`] of these bits decode to.
    #[inline(always)]
    pub(crate) fn look_up(&self, bits: u64) -> Entry {
        self.entries[(bits >> (64 - SIGHT)) as usize]
    }

    /// Decodes and consumes one symbol that [`Table::look_up`] could not; `None` if no code matches.
    ///
    /// 56 bits or more are loaded afterwards.
    #[cold]
    #[inline(never)]
    pub(crate) fn decode_slowly(&self, bits: &mut Bits<'_>) -> Option<(usize, i16)> {
        bits.refill();
        let code = (bits.peek() >> 48) as u32;
        let length = (1..=16).find(|&length| code < self.limits[length])?;
        let index = self.offsets[length].wrapping_add((code >> (16 - length)) as usize);
        let (run, size) = self.meaning(*self.symbols.get(index)?);
        bits.consume(length as u32);
        let value = signed(bits.peek() >> 1 >> (63 - size), size);
        bits.consume(size);
        bits.refill();
        Some((run, value))
    }
}

/// The value that these `size` bits stand for (T.81, F.2.2.1: EXTEND).
fn signed(bits: u64, size: u32) -> i16 {
    let positive = size > 0 && bits >> (size - 1) == 1;
    let value = if positive { bits as i32 } else { bits as i32 + 1 - (1 << size) };
    value as i16
}
