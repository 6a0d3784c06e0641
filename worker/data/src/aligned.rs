//! Memory for vectors: floats that begin where a cache line does.
//!
//! A vector of 64 bytes that lies across two lines costs two accesses, and
//! memory from the allocator begins 16 bytes into a line.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, or of the pair that is fetched at once.
const LINE: usize = 64;

/// Floats in it.
const FLOATS: usize = LINE / size_of::<f32>();

/// A slice of floats that begins at a cache line and can grow.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    values: Vec<f32>,
    len: usize,
}

impl Aligned {
    /// Makes room for `len` floats. The values are anything.
    pub(crate) fn resize(&mut self, len: usize) {
        self.values.resize(len + FLOATS, 0.0);
        self.len = len;
    }

    /// Floats before the first line. The memory does not move until the next `resize`.
    fn skipped(&self) -> usize {
        self.values.as_ptr().align_offset(LINE)
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.values.get(self.skipped()..).map_or(&[], |values| &values[..self.len])
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        let skipped = self.skipped();
        self.values.get_mut(skipped..).map_or(&mut [], |values| &mut values[..self.len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_line_whatever_its_length() {
        let mut buffer = Aligned::default();
        assert_eq!(buffer.len(), 0);
        for len in [0, 1, 15, 16, 1_000, 3] {
            buffer.resize(len);
            buffer.fill(1.0);
            assert_eq!((buffer.len(), buffer.as_ptr().align_offset(LINE)), (len, 0));
        }
    }
}
