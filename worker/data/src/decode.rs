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
