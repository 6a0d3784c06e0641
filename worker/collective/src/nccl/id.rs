//! What the ranks of one communicator have in common.

use std::fmt;

use super::NcclError;

/// Bytes of an id.
const LEN: usize = 128;

/// Names one attempt to form a communicator. One rank makes it ([`Nccl::unique_id`](super::Nccl::unique_id))
/// and hands it to the others; it is good for one attempt only. Whoever knows it can join, so it is
/// never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct UniqueId([u8; LEN]);

impl UniqueId {
    /// Takes an id that another rank made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NcclError> {
        let id = bytes.try_into().map_err(|_| NcclError::BadId { len: bytes.len() })?;
        Ok(Self(id))
    }

    /// The bytes to hand to the others.
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UniqueId(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_travels_as_128_bytes_and_is_not_printed() {
        let id = UniqueId::from_bytes(&[7; 128]).unwrap();
        assert_eq!(UniqueId::from_bytes(id.as_bytes()).unwrap(), id);
        assert_eq!(format!("{id:?}"), "UniqueId(not shown)");
        let error = UniqueId::from_bytes(&[7; 127]).unwrap_err();
        assert!(error.to_string().contains("127 bytes"), "{error}");
    }
}
