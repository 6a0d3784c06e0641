//! Memory of the program that uses the library.

#![expect(unsafe_code, reason = "the C functions get pointers; their caller vouches for them")]

/// Bytes somewhere in the process, as a call named them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    address: usize,
    len: usize,
}

impl Span {
    pub(crate) fn new(address: usize, len: usize) -> Self {
        Self { address, len }
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    pub(crate) fn read(self) -> Vec<u8> {
        if self.len == 0 {
            return Vec::new();
        }
        let start = std::ptr::with_exposed_provenance::<u8>(self.address);
        // SAFETY: NCCL's and CUDA's contract: memory named in a call is valid, and left alone, until
        // the call's work on its stream is over.
        unsafe { std::slice::from_raw_parts(start, self.len) }.to_vec()
    }

    pub(crate) fn write(self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.len, "a copy of another length");
        let start = std::ptr::with_exposed_provenance_mut::<u8>(self.address);
        // SAFETY: as above; `bytes` is a copy of ours, so they don't overlap.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), self.len) }
    }
}
