//! Fixed-length messages, field by field. Both ends are ours, so a wrong length is a bug.

// Payloads travel in the machine's own byte order.
const _: () = assert!(cfg!(target_endian = "little"), "the wire format is little-endian");

/// Fills a message from its start.
pub(crate) struct Writer<'a>(&'a mut [u8]);

impl<'a> Writer<'a> {
    pub(crate) fn new(message: &'a mut [u8]) -> Self {
        Self(message)
    }

    pub(crate) fn put(&mut self, field: &[u8]) {
        let (head, tail) = std::mem::take(&mut self.0).split_at_mut(field.len());
        head.copy_from_slice(field);
        self.0 = tail;
    }
}

/// Reads a message from its start.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, tail) = self.0.split_first_chunk().expect("the message has all its fields");
        self.0 = tail;
        *field
    }
}
