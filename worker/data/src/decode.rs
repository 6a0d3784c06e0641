//! Stored bytes to planes of 8-bit samples. The same decoder validates at packing time and reads in training.
//!
//! The format is told from the first bytes, never from a name. Palettes are
//! looked up, alpha is dropped (Pillow's `convert("RGB")` does the same), 16-bit
//! samples keep their upper byte. A file that ends early is an error: a
//! half-grey image would train silently.
//!
//! Baseline JPEG, which is nearly all there is, goes through [`lockstep_jpeg`];
//! progressive and other rare files through a complete decoder.

use std::io::Cursor;

use lockstep_jpeg::{Colour, JpegError, PlanarImage, Plane, Region};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::rgb::{RgbImage, to_rgb};

/// Largest image that is decoded; the limit keeps a hostile header from taking all memory.
const MAX_PIXELS: usize = 100_000_000;
const MAX_SIDE: usize = 65_535;

/// Decodes JPEG and PNG; keeps its buffers between images.
#[derive(Debug, Default)]
pub struct Decoder {
    baseline: lockstep_jpeg::Decoder,
    /// Interleaved samples on their way into planes.
    raw: Vec<u8>,
}

/// An image whose header was read.
pub struct OpenImage<'a> {
    width: u32,
    height: u32,
    source: Source<'a>,
}

enum Source<'a> {
    Baseline(lockstep_jpeg::Opened<'a>),
    Jpeg(Box<JpegDecoder<ZCursor<&'a [u8]>>>, &'a mut Vec<u8>),
    Png(Box<png::Reader<Cursor<&'a [u8]>>>, &'a mut Vec<u8>),
}

impl Decoder {
    /// Reads the header of `bytes`.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, as the rest of a sentence.
    pub fn open<'a>(&'a mut self, bytes: &'a [u8]) -> Result<OpenImage<'a>, String> {
        let Self { baseline, raw } = self;
        let image = match bytes {
            [] => return Err("is empty".to_owned()),
            [0xFF, 0xD8, ..] => match baseline.open(bytes) {
                Ok(opened) => OpenImage::baseline(opened),
                Err(JpegError::Unsupported(_)) => open_jpeg(bytes, raw)?,
                Err(damaged) => return Err(damaged.to_string()),
            },
            [0x89, b'P', b'N', b'G', ..] => open_png(bytes, raw)?,
            _ => return Err("is neither JPEG nor PNG".to_owned()),
        };
        check_sides(image.width, image.height)?;
        Ok(image)
    }

    /// Replaces `packed` with the coefficients of a baseline JPEG, to be opened by [`Decoder::open_packed`].
    /// Says whether it could: not of another kind of file, nor of one that is damaged anywhere.
    pub(crate) fn pack(&mut self, bytes: &[u8], packed: &mut Vec<u8>) -> bool {
        self.baseline.pack(bytes, packed).is_ok()
    }

    /// As [`Decoder::open`] of the JPEG that was packed; decodes to the same samples.
    pub(crate) fn open_packed<'a>(&'a mut self, packed: &'a [u8]) -> Result<OpenImage<'a>, String> {
        let opened = self.baseline.open_packed(packed).map_err(|error| error.to_string())?;
        Ok(OpenImage::baseline(opened))
    }

    /// Decodes the whole image as interleaved RGB, reusing the memory of `rgb`.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, as the rest of a sentence.
    pub fn decode(&mut self, bytes: &[u8], rgb: &mut RgbImage) -> Result<(), String> {
        let mut image = PlanarImage::default();
        self.open(bytes)?.decode_all(&mut image)?;
        to_rgb(&image, rgb);
        Ok(())
    }
}

impl<'a> OpenImage<'a> {
    fn baseline(opened: lockstep_jpeg::Opened<'a>) -> Self {
        let (width, height) = (opened.width(), opened.height());
        Self { width, height, source: Source::Baseline(opened) }
    }

    /// Pixels per row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Decodes at least `regions`, and what upsampling their chroma needs around
    /// them, into `image`; reuses its memory. Damage elsewhere may go unseen.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, as the rest of a sentence.
    pub fn decode(self, regions: &[Region], image: &mut PlanarImage) -> Result<(), String> {
        (image.width, image.height) = (self.width, self.height);
        match self.source {
            Source::Baseline(opened) => {
                opened.decode(regions, image).map_err(|damaged| damaged.to_string())
            }
            Source::Jpeg(decoder, raw) => decode_jpeg(*decoder, raw, image),
            Source::Png(reader, raw) => decode_png(*reader, raw, image),
        }
    }

    /// Decodes every pixel; as [`OpenImage::decode`].
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, as the rest of a sentence.
    pub fn decode_all(self, image: &mut PlanarImage) -> Result<(), String> {
        let whole = Region { left: 0, top: 0, width: self.width, height: self.height };
        self.decode(&[whole], image)
    }
}

impl std::fmt::Debug for OpenImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { width, height, .. } = self;
        f.debug_struct("OpenImage").field("width", width).field("height", height).finish()
    }
}

fn open_png<'a>(bytes: &'a [u8], raw: &'a mut Vec<u8>) -> Result<OpenImage<'a>, String> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let reader = decoder.read_info().map_err(damaged_png)?;
    let (width, height) = reader.info().size();
    Ok(OpenImage { width, height, source: Source::Png(Box::new(reader), raw) })
}

fn decode_png(
    mut reader: png::Reader<Cursor<&[u8]>>,
    raw: &mut Vec<u8>,
    image: &mut PlanarImage,
) -> Result<(), String> {
    let size = reader.output_buffer_size().ok_or("is too large")?;
    raw.resize(size, 0);
    let frame = reader.next_frame(raw).map_err(damaged_png)?;
    reader.finish().map_err(damaged_png)?;
    let samples = &raw[..frame.buffer_size()];
    match frame.color_type {
        png::ColorType::Grayscale => separate::<1>(samples, Colour::Gray, image),
        png::ColorType::GrayscaleAlpha => separate::<2>(samples, Colour::Gray, image),
        png::ColorType::Rgb => separate::<3>(samples, Colour::Rgb, image),
        png::ColorType::Rgba => separate::<4>(samples, Colour::Rgb, image),
        png::ColorType::Indexed => return Err("is a PNG whose palette is missing".to_owned()),
    }
    Ok(())
}

fn open_jpeg<'a>(bytes: &'a [u8], raw: &'a mut Vec<u8>) -> Result<OpenImage<'a>, String> {
    if !is_ended(bytes) {
        return Err("is a damaged JPEG: it ends in the middle of its pixels".to_owned());
    }
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged_jpeg)?;
    let (width, height) = decoder.dimensions().ok_or("is a JPEG without dimensions")?;
    let width = u32::try_from(width).map_err(|_| "is too wide")?;
    let height = u32::try_from(height).map_err(|_| "is too high")?;
    Ok(OpenImage { width, height, source: Source::Jpeg(Box::new(decoder), raw) })
}

fn decode_jpeg(
    mut decoder: JpegDecoder<ZCursor<&[u8]>>,
    raw: &mut Vec<u8>,
    image: &mut PlanarImage,
) -> Result<(), String> {
    raw.resize(3 * image.width as usize * image.height as usize, 0);
    decoder.decode_into(raw).map_err(damaged_jpeg)?;
    separate::<3>(raw, Colour::Rgb, image);
    Ok(())
}

/// Interleaved samples, `STRIDE` per pixel, to planes; what is left of a pixel is dropped.
fn separate<const STRIDE: usize>(samples: &[u8], colour: Colour, image: &mut PlanarImage) {
    let planes = if colour == Colour::Gray { 1 } else { 3 };
    let pixels = samples.as_chunks::<STRIDE>().0;
    image.colour = colour;
    image.planes.resize_with(planes, Plane::default);
    for (channel, plane) in image.planes.iter_mut().enumerate() {
        (plane.stride, plane.shrink) = (image.width as usize, [1, 1]);
        plane.samples.resize(pixels.len(), 0);
        for (sample, pixel) in plane.samples.iter_mut().zip(pixels) {
            *sample = pixel[channel];
        }
    }
}

fn damaged_png(error: impl std::fmt::Display) -> String {
    format!("is a damaged PNG: {error}")
}

fn damaged_jpeg(error: impl std::fmt::Debug) -> String {
    format!("is a damaged JPEG: {error:?}")
}

/// Does an end marker follow the last scan? The decoder takes a missing end for zeros.
///
/// Pixel data cannot hold these markers, so the last of the two decides; an
/// embedded thumbnail with an end of its own lies before the scan.
fn is_ended(jpeg: &[u8]) -> bool {
    let last = jpeg.array_windows().rev().find(|pair| matches!(pair, [0xFF, 0xD9 | 0xDA]));
    last == Some(&[0xFF, 0xD9])
}

fn check_sides(width: u32, height: u32) -> Result<(), String> {
    match (width as usize).checked_mul(height as usize) {
        Some(0) => Err("has no pixels".to_owned()),
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => Err(format!("has {width}x{height} pixels, more than {MAX_PIXELS}")),
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
        assert!(check_sides(65_536, 65_536).unwrap_err().contains("more than 100000000"));
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
