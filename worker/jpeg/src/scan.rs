//! The entropy-coded part of the file, ready to be read as bits.

use memchr::memchr;

use crate::bits::{Bits, PADDING};
use crate::error::{JpegError, damaged_at};

const MARKER: u8 = 0xFF;

/// A scan without byte stuffing (T.81, B.1.1.5) and without its restart markers.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    bytes: Vec<u8>,
    /// Where each restart interval starts, and where the last one ends.
    bounds: Vec<usize>,
}

impl Scan {
    /// Copies the scan that starts `file[start..]`, and says where the marker behind it lies.
    pub(crate) fn load(&mut self, file: &[u8], start: usize) -> Result<usize, JpegError> {
        self.bytes.clear();
        self.bytes.reserve(file.len() - start + PADDING);
        self.bounds.clear();
        self.bounds.push(0);
        let mut at = start;
        loop {
            let cut_short = || damaged_at(file.len(), "it ends in the middle of its pixels");
            let length = memchr(MARKER, &file[at..]).ok_or_else(cut_short)?;
            self.bytes.extend_from_slice(&file[at..at + length]);
            at += length;
            match *file.get(at + 1).ok_or_else(cut_short)? {
                0 => {
                    self.bytes.push(MARKER);
                    at += 2;
                }
                // A fill byte (B.1.1.2).
                MARKER => at += 1,
                restart @ 0xD0..=0xD7 => {
                    // The first one, RST0, ends the first interval.
                    if usize::from(restart & 7) != (self.bounds.len() - 1) % 8 {
                        return Err(damaged_at(at, "a restart marker is missing"));
                    }
                    self.bounds.push(self.bytes.len());
                    at += 2;
                }
                _ => break,
            }
        }
        self.bounds.push(self.bytes.len());
        self.bytes.resize(self.bytes.len() + PADDING, 0);
        Ok(at)
    }

    /// Number of restart intervals; 1 where there is no restart marker.
    pub(crate) fn intervals(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The bits of a restart interval, and their end as a [`Bits::position`].
    pub(crate) fn interval(&self, index: usize) -> (Bits<'_>, usize) {
        (Bits::new(&self.bytes, self.bounds[index]), 8 * self.bounds[index + 1])
    }

    /// Bits in all intervals.
    pub(crate) fn len_bits(&self) -> usize {
        8 * (self.bytes.len() - PADDING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffing_and_fill_bytes_go_and_restart_markers_cut() {
        let file = [9, 1, 0xFF, 0, 2, 0xFF, 0xFF, 0xD0, 3, 0xFF, 0, 0xFF, 0xD9, 7];
        let mut scan = Scan::default();
        assert_eq!(scan.load(&file, 1), Ok(11));
        assert_eq!(scan.bytes, [[1, 0xFF, 2, 3, 0xFF].as_slice(), &[0; PADDING]].concat());
        assert_eq!(scan.bounds, [0, 3, 5]);
        assert_eq!((scan.intervals(), scan.len_bits()), (2, 40));
    }

    #[test]
    fn a_restart_marker_out_of_turn_is_damage() {
        let error = Scan::default().load(&[1, 0xFF, 0xD1, 2, 0xFF, 0xD9], 0).unwrap_err();
        assert_eq!(error, damaged_at(1, "a restart marker is missing"));
    }

    #[test]
    fn a_scan_without_a_marker_behind_it_ends_early() {
        for file in [&[1, 2, 3][..], &[], &[1, 0xFF], &[0xFF, 0]] {
            let error = Scan::default().load(file, 0).unwrap_err();
            assert_eq!(error, damaged_at(file.len(), "it ends in the middle of its pixels"));
        }
    }
}
