//! Why an image is not decoded.

use std::fmt;

/// The answers besides an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JpegError {
    /// A legal JPEG of a kind that is left to a complete decoder.
    #[error("is a JPEG with {0}, which only the library decoder reads")]
    Unsupported(&'static str),

    /// Not a JPEG, or not all of one.
    #[error("is a damaged JPEG: {what} at {place}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where it showed; the damage itself may lie before.
        place: Place,
    },

    /// Bytes that are not what [`Decoder::pack`](crate::Decoder::pack) has written.
    #[error("holds no coefficients of an image: {0}")]
    NoCoefficients(&'static str),
}

/// Where damage showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Offset in the file.
    Byte(usize),
    /// Row of the image, in pixels.
    Row(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(offset) => write!(f, "byte {offset}"),
            Self::Row(row) => write!(f, "pixel row {row}"),
        }
    }
}

pub(crate) fn damaged_at(offset: usize, what: &'static str) -> JpegError {
    JpegError::Damaged { what, place: Place::Byte(offset) }
}
