//! 8-bit pixels to stored bytes, where packing cannot keep what it found.

/// Quality of every JPEG that packing writes; colour at half resolution, as cameras store it.
pub(crate) const JPEG_QUALITY: u8 = 95;

/// Replaces `out` with a PNG of these pixels.
///
/// # Panics
///
/// If the number of pixels is not what the sides say.
pub(crate) fn png(
    out: &mut Vec<u8>,
    color: png::ColorType,
    (width, height): (u32, u32),
    pixels: &[u8],
) {
    out.clear();
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(pixels))
        .expect("memory takes every write, and there are as many pixels as the sides say");
}

/// Replaces `out` with a JPEG of these RGB pixels.
///
/// # Errors
///
/// If a side is longer than a JPEG's can be, as the rest of a sentence.
pub(crate) fn jpeg(
    out: &mut Vec<u8>,
    (width, height): (u32, u32),
    rgb: &[u8],
) -> Result<(), String> {
    let too_long = || format!("has {width}x{height} pixels, too many for a JPEG");
    let (Ok(columns), Ok(rows)) = (u16::try_from(width), u16::try_from(height)) else {
        return Err(too_long());
    };
    out.clear();
    let mut encoder = jpeg_encoder::Encoder::new(out, JPEG_QUALITY);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    encoder.encode(rgb, columns, rows, jpeg_encoder::ColorType::Rgb).map_err(|_| too_long())
}
