//! Stored bytes to 8-bit RGB. The same decoder validates at packing time and reads in training.
//!
//! The format is told from the first bytes, never from a name. Grayscale becomes
//! three equal channels, palettes are looked up, alpha is dropped (Pillow's
//! `convert("RGB")` does the same), 16-bit samples keep their upper byte.
//! A file that ends early is an error: a half-grey image would train silently.

use std::io::Cursor;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Largest image that is decoded; the limit keeps a hostile header from taking all memory.
const MAX_PIXELS: usize = 100_000_000;
const MAX_SIDE: usize = 65_535;

/// An image: rows from the top, three bytes per pixel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// R, G, B of each pixel.
    pub pixels: Vec<u8>,
}

/// Decodes JPEG and PNG; keeps its buffer between images.
#[derive(Debug, Default)]
pub struct Decoder {
    raw: Vec<u8>,
}

impl Decoder {
    /// Decodes `bytes` into `image`, reusing its memory.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, as the rest of a sentence.
    pub fn decode(&mut self, bytes: &[u8], image: &mut RgbImage) -> Result<(), String> {
        match bytes {
            [] => Err("is empty".to_owned()),
            [0xFF, 0xD8, ..] => decode_jpeg(bytes, image),
            [0x89, b'P', b'N', b'G', ..] => self.decode_png(bytes, image),
            _ => Err("is neither JPEG nor PNG".to_owned()),
        }
    }

    fn decode_png(&mut self, bytes: &[u8], image: &mut RgbImage) -> Result<(), String> {
        let damaged = |error: png::DecodingError| format!("is a damaged PNG: {error}");
        let mut decoder = png::Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info().map_err(damaged)?;
        let (width, height) = reader.info().size();
        let pixels = pixel_count(width as usize, height as usize)?;
        let size = reader.output_buffer_size().ok_or("is too large")?;
        self.raw.resize(size, 0);
        let frame = reader.next_frame(&mut self.raw).map_err(damaged)?;
        reader.finish().map_err(damaged)?;
        (image.width, image.height) = (width, height);
        image.pixels.resize(3 * pixels, 0);
        let source = &self.raw[..frame.buffer_size()];
        match frame.color_type {
            png::ColorType::Grayscale => spread_gray::<1>(source, &mut image.pixels),
            png::ColorType::GrayscaleAlpha => spread_gray::<2>(source, &mut image.pixels),
            png::ColorType::Rgb => image.pixels.copy_from_slice(source),
            png::ColorType::Rgba => drop_alpha(source, &mut image.pixels),
            png::ColorType::Indexed => return Err("is a PNG whose palette is missing".to_owned()),
        }
        Ok(())
    }
}

fn decode_jpeg(bytes: &[u8], image: &mut RgbImage) -> Result<(), String> {
    if !is_ended(bytes) {
        return Err("is a damaged JPEG: it ends in the middle of its pixels".to_owned());
    }
    let damaged = |error| format!("is a damaged JPEG: {error:?}");
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or("is a JPEG without dimensions")?;
    image.pixels.resize(3 * pixel_count(width, height)?, 0);
    decoder.decode_into(&mut image.pixels).map_err(damaged)?;
    image.width = u32::try_from(width).map_err(|_| "is too wide")?;
    image.height = u32::try_from(height).map_err(|_| "is too high")?;
    Ok(())
}

/// Does an end marker follow the last scan? The decoder takes a missing end for zeros.
///
/// Pixel data cannot hold these markers, so the last of the two decides; an
/// embedded thumbnail with an end of its own lies before the scan.
fn is_ended(jpeg: &[u8]) -> bool {
    let last = jpeg.array_windows().rev().find(|pair| matches!(pair, [0xFF, 0xD9 | 0xDA]));
    last == Some(&[0xFF, 0xD9])
}

fn pixel_count(width: usize, height: usize) -> Result<usize, String> {
    match width.checked_mul(height) {
        Some(0) => Err("has no pixels".to_owned()),
        Some(pixels) if pixels <= MAX_PIXELS => Ok(pixels),
        _ => Err(format!("has {width}x{height} pixels, more than {MAX_PIXELS}")),
    }
}

fn spread_gray<const STRIDE: usize>(source: &[u8], rgb: &mut [u8]) {
    for (out, pixel) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(source.as_chunks::<STRIDE>().0) {
        *out = [pixel[0]; 3];
    }
}

fn drop_alpha(source: &[u8], rgb: &mut [u8]) {
    for (out, [r, g, b, _]) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(source.as_chunks().0) {
        *out = [*r, *g, *b];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDTH: u16 = 37;
    const HEIGHT: u16 = 21;

    fn picture() -> Vec<u8> {
        let side = u32::from(WIDTH) * u32::from(HEIGHT);
        (0..3 * side).map(|i| u8::try_from(i * i / 7 % 251).unwrap()).collect()
    }

    fn jpeg() -> Vec<u8> {
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 95)
            .encode(&picture(), WIDTH, HEIGHT, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        bytes
    }

    fn png(color: png::ColorType, depth: png::BitDepth, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
        }
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
        let mut image = RgbImage::default();
        Decoder::default().decode(bytes, &mut image).map(|()| image)
    }

    #[test]
    fn every_kind_of_png_becomes_rgb() {
        use png::BitDepth::{Eight, One, Sixteen};
        use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        let cases: [(_, _, &[u8], _); 7] = [
            (Grayscale, Eight, &[7, 9], [7, 7, 7, 9, 9, 9]),
            (Grayscale, One, &[0b0100_0000], [0, 0, 0, 255, 255, 255]),
            (Grayscale, Sixteen, &[7, 200, 9, 1], [7, 7, 7, 9, 9, 9]),
            (GrayscaleAlpha, Eight, &[7, 0, 9, 255], [7, 7, 7, 9, 9, 9]),
            (Indexed, One, &[0b0100_0000], [10, 20, 30, 40, 50, 60]),
            (Rgb, Eight, &[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
            (Rgba, Eight, &[1, 2, 3, 0, 4, 5, 6, 255], [1, 2, 3, 4, 5, 6]),
        ];
        for (color, depth, stored, expected) in cases {
            let image = decode(&png(color, depth, stored)).unwrap();
            assert_eq!(image.pixels, expected, "{color:?} {depth:?}");
            assert_eq!((image.width, image.height), (2, 1));
        }
    }

    #[test]
    fn a_grayscale_jpeg_becomes_rgb() {
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 95)
            .encode(&[99; 64], 8, 8, jpeg_encoder::ColorType::Luma)
            .unwrap();
        assert_eq!(decode(&bytes).unwrap().pixels, [99; 192]);
    }

    #[test]
    fn a_buffer_that_was_larger_leaves_no_trace() {
        let (mut decoder, mut image) = (Decoder::default(), RgbImage::default());
        decoder.decode(&jpeg(), &mut image).unwrap();
        decoder
            .decode(&png(png::ColorType::Grayscale, png::BitDepth::Eight, &[7, 9]), &mut image)
            .unwrap();
        assert_eq!(image.pixels, [7, 7, 7, 9, 9, 9]);
    }

    #[test]
    fn an_image_that_ends_early_is_damaged_wherever_it_is_cut() {
        let png = png(png::ColorType::Rgb, png::BitDepth::Eight, &[1, 2, 3, 4, 5, 6]);
        for whole in [jpeg(), png] {
            decode(&whole).unwrap();
            for end in 0..whole.len() {
                assert!(decode(&whole[..end]).is_err(), "cut at {end} of {}", whole.len());
            }
        }
    }

    #[test]
    fn what_is_no_image_is_named_as_such() {
        assert_eq!(decode(b"").unwrap_err(), "is empty");
        assert_eq!(decode(b"hello").unwrap_err(), "is neither JPEG nor PNG");
    }

    #[test]
    fn a_header_that_claims_too_many_pixels_is_refused() {
        let mut huge = png(png::ColorType::Grayscale, png::BitDepth::Eight, &[7, 9]);
        huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        // The header's own checksum guards it too; either way it is an error.
        assert!(decode(&huge).is_err());
        assert!(pixel_count(65_536, 65_536).unwrap_err().contains("more than 100000000"));
    }

    proptest! {
        #[test]
        fn no_damage_makes_a_decoder_panic(
            at: prop::sample::Index,
            damage in prop::collection::vec(any::<u8>(), 1..8),
        ) {
            let png = png(png::ColorType::Rgb, png::BitDepth::Eight, &[1, 2, 3, 4, 5, 6]);
            for mut bytes in [jpeg(), png] {
                let at = at.index(bytes.len() - damage.len());
                bytes[at..at + damage.len()].copy_from_slice(&damage);
                let _image = decode(&bytes);
            }
        }
    }
}
