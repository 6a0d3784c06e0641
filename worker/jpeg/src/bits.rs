//! Bits of the scan, highest first.

/// Zero bytes that must follow the last byte of a scan.
pub(crate) const PADDING: usize = 8;

/// Reads bits from bytes without stuffing.
///
/// Past the end it goes on with zeros; whoever reads compares [`Bits::position`] with where the
/// data end. That is one comparison per restart interval in place of one per symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to load. 32 bits, so that adding to it as a `usize` cannot overflow.
    next: u32,
    /// Loaded bits from the top; those below the first `count` are right or zero.
    buffer: u64,
    /// Only the lowest six bits are meant.
    count: u64,
}

impl<'a> Bits<'a> {
    /// Starts at a byte of a scan that ends with [`PADDING`].
    pub(crate) fn new(bytes: &'a [u8], start: usize) -> Self {
        let next = u32::try_from(start).expect("a scan is shorter than 4 GiB");
        Self { bytes, next, buffer: 0, count: 0 }
    }

    /// Afterwards 56 bits or more are loaded.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        let next = self.next as usize;
        if let Some(word) = self.bytes.get(next..next + 8).and_then(<[u8]>::first_chunk) {
            // Bits that do not fit whole bytes are or-ed in again by the next refill.
            self.buffer |= u64::from_be_bytes(*word) >> (self.count & 63);
        }
        self.next += (!self.count >> 3 & 7) as u32;
        self.count |= 0b11_1000;
    }

    /// The first loaded bits, from the top.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.buffer
    }

    /// Drops bits that are loaded; only the lowest six bits of their number are meant.
    #[inline(always)]
    pub(crate) fn consume(&mut self, bits: u64) {
        self.buffer <<= bits & 63;
        self.count = self.count.wrapping_sub(bits);
    }

    /// Bits consumed, from the first byte of the scan.
    pub(crate) fn position(&self) -> usize {
        8 * self.next as usize - (self.count & 63) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_highest_first_and_zeros_follow_the_end() {
        let bytes: Vec<u8> = (1..=20).chain([0; PADDING]).collect();
        let mut bits = Bits::new(&bytes, 1);
        for expected in (2..=20).chain([0; 30]) {
            for half in [expected >> 4, expected & 15] {
                bits.refill();
                assert_eq!(bits.peek() >> 60, half);
                bits.consume(4);
            }
        }
        assert_eq!(bits.position(), 8 * 50);
    }
}
