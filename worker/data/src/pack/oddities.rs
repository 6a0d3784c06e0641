//! What is odd about an image that can be decoded, told from its headers.

use std::io::Cursor;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;

/// Oddities of a JPEG or PNG.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Oddities {
    /// Four colours of print instead of three of light.
    pub(super) cmyk: bool,
    /// 16 bits per sample.
    pub(super) sixteen_bit: bool,
    /// More than one picture.
    pub(super) animated: bool,
    /// How a camera says that the picture is to be turned; `None` if not at all.
    pub(super) turn: Option<Turn>,
}

/// EXIF orientations 2 to 8: what makes the stored picture upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn(u8);

impl Oddities {
    /// Of an image that was decoded before; anything else has none.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"\x89PNG") { Self::of_png(bytes) } else { Self::of_jpeg(bytes) }
    }

    fn of_png(bytes: &[u8]) -> Self {
        let Ok(reader) = png::Decoder::new(Cursor::new(bytes)).read_info() else {
            return Self::default();
        };
        let info = reader.info();
        Self {
            sixteen_bit: info.bit_depth == png::BitDepth::Sixteen,
            animated: info.animation_control.is_some(),
            ..Self::default()
        }
    }

    fn of_jpeg(bytes: &[u8]) -> Self {
        let mut decoder = JpegDecoder::new(ZCursor::new(bytes));
        if decoder.decode_headers().is_err() {
            return Self::default();
        }
        let cmyk = matches!(decoder.input_colorspace(), Some(ColorSpace::CMYK | ColorSpace::YCCK));
        let turn = decoder.exif().and_then(|exif| Turn::from_exif(exif));
        Self { cmyk, turn, ..Self::default() }
    }
}

impl Turn {
    /// Finds the orientation in the TIFF structure of an EXIF block.
    fn from_exif(exif: &[u8]) -> Option<Self> {
        /// Tag and type of the entry: one 16-bit number.
        const ORIENTATION: (u16, u16) = (0x0112, 3);
        let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
        let little = match tiff.first_chunk::<2>()? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        let bytes = |at: usize| tiff.get(at..);
        let u16_at = |at| {
            let bytes = *bytes(at)?.first_chunk()?;
            Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
        };
        let u32_at = |at| {
            let bytes = *bytes(at)?.first_chunk()?;
            Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
        };
        let table = usize::try_from(u32_at(4)?).ok()?;
        let entries = (0..usize::from(u16_at(table)?)).map(|entry| table + 2 + 12 * entry);
        let value = entries
            .map_while(|at| Some(((u16_at(at)?, u16_at(at + 2)?), u16_at(at + 8)?)))
            .find_map(|(entry, value)| (entry == ORIENTATION).then_some(value))?;
        u8::try_from(value).ok().filter(|value| (2..=8).contains(value)).map(Self)
    }

    /// Replaces `upright` with the pixels of a picture of `width` × `height`, turned; gives its sides.
    pub(super) fn apply(
        self,
        rgb: &[u8],
        (width, height): (u32, u32),
        upright: &mut Vec<u8>,
    ) -> (u32, u32) {
        let (columns, rows) = (width as usize, height as usize);
        let transposed = self.0 >= 5;
        let sides = if transposed { (rows, columns) } else { (columns, rows) };
        let pixels = rgb.as_chunks::<3>().0;
        upright.clear();
        for y in 0..sides.1 {
            for x in 0..sides.0 {
                let (right, bottom) = (columns - 1, rows - 1);
                let (column, row) = match self.0 {
                    2 => (right - x, y),
                    3 => (right - x, bottom - y),
                    4 => (x, bottom - y),
                    5 => (y, x),
                    6 => (y, bottom - x),
                    7 => (right - y, bottom - x),
                    _ => (right - y, x),
                };
                upright.extend(pixels[row * columns + column]);
            }
        }
        if transposed { (height, width) } else { (width, height) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A JPEG with this EXIF orientation.
    pub(in crate::pack) fn rotated(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let length = u8::try_from(exif.len() + 2).unwrap();
        [&[0xFF, 0xD8, 0xFF, 0xE1, 0, length][..], &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn every_orientation_brings_the_corner_where_it_belongs() {
        // 2×3 pixels named by number; the rows that each orientation makes, as EXIF 2.32 draws them.
        let rgb: Vec<u8> = (1..=6).flat_map(|value| [value; 3]).collect();
        let expected: [(u8, (u32, u32), [u8; 6]); 7] = [
            (2, (2, 3), [2, 1, 4, 3, 6, 5]),
            (3, (2, 3), [6, 5, 4, 3, 2, 1]),
            (4, (2, 3), [5, 6, 3, 4, 1, 2]),
            (5, (3, 2), [1, 3, 5, 2, 4, 6]),
            (6, (3, 2), [5, 3, 1, 6, 4, 2]),
            (7, (3, 2), [6, 4, 2, 5, 3, 1]),
            (8, (3, 2), [2, 4, 6, 1, 3, 5]),
        ];
        for (orientation, sides, values) in expected {
            let mut upright = vec![9; 50];
            assert_eq!(Turn(orientation).apply(&rgb, (2, 3), &mut upright), sides);
            let red: Vec<_> = upright.iter().copied().step_by(3).collect();
            assert_eq!(red, values, "orientation {orientation}");
        }
    }

    #[test]
    fn an_orientation_is_found_in_either_byte_order() {
        let little = b"II\x2A\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        assert_eq!(Turn::from_exif(little), Some(Turn(6)));
        let big = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0";
        assert_eq!(Turn::from_exif(big), Some(Turn(3)));
        let upright = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0";
        assert_eq!(Turn::from_exif(upright), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_of_exif_panic(
            order: bool,
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let start: &[u8] = if order { b"II" } else { b"MM" };
            let _turn = Turn::from_exif(&[start, &bytes].concat());
            let _turn = Turn::from_exif(&bytes);
            let _oddities = Oddities::of(&bytes);
        }
    }
}
