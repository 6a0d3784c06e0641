//! An image as one plane of 8-bit samples per component.

/// What the planes of an image mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Colour {
    /// One plane of gray.
    #[default]
    Gray,
    /// Luma and two chroma planes of JFIF (ITU-R BT.601, full range); chroma 128 is no colour.
    YCbCr,
    /// Red, green and blue.
    Rgb,
}

/// An image whose components may be sampled more coarsely than its pixels.
///
/// Only what was asked for when it was decoded has a defined content. The
/// memory is kept between images.
#[derive(Debug, Clone, Default)]
pub struct PlanarImage {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What the planes mean.
    pub colour: Colour,
    /// One plane for gray, else three.
    pub planes: Vec<Plane>,
}

/// One component.
#[derive(Debug, Clone, Default)]
pub struct Plane {
    /// Rows from the top, `stride` samples each; rows and columns may go on beyond the image.
    pub samples: Vec<u8>,
    /// Samples from the start of a row to the start of the next.
    pub stride: usize,
    /// Pixels per sample, across and down: 1 or 2 each.
    pub shrink: [u32; 2],
}

impl Plane {
    /// Writes the rows of a block whose upper left sample is at `x`, `y`.
    #[inline(always)]
    pub(crate) fn put_block(&mut self, x: usize, y: usize, rows: &[[u8; 8]; 8]) {
        let samples = &mut self.samples[y * self.stride + x..];
        for (row, values) in rows.iter().enumerate() {
            samples[row * self.stride..][..8].copy_from_slice(values);
        }
    }
}

/// Part of an image, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}
