//! Planes to interleaved RGB, where pixels are shown, counted or encoded anew.
//!
//! Bit for bit what libjpeg-turbo makes of the same planes: "fancy" (triangle)
//! upsampling of chroma and conversion in 16-bit fixed point. Views do not come
//! through here; they fold both steps into their weights, without the roundings.
//!
//! Source: `jdsample.c` and `jdcolor.c` in libjpeg-turbo.

use lockstep_jpeg::{Colour, PlanarImage, Plane};

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

/// Replaces `rgb` with the pixels of `image`, which was decoded as a whole; reuses its memory.
///
/// # Panics
///
/// If planes are missing or too small for the image.
pub fn to_rgb(image: &PlanarImage, rgb: &mut RgbImage) {
    (rgb.width, rgb.height) = (image.width, image.height);
    let width = image.width as usize;
    rgb.pixels.resize(3 * width * image.height as usize, 0);
    let mut rows = [const { Vec::new() }; 3];
    for (y, out) in rgb.pixels.chunks_exact_mut(3 * width).enumerate() {
        for (plane, row) in image.planes.iter().zip(&mut rows) {
            upsample(plane, y, (image.width, image.height), row);
        }
        let [first, second, third] = &rows;
        let out = out.as_chunks_mut::<3>().0.iter_mut();
        match image.colour {
            Colour::Gray => out.zip(first).for_each(|(out, value)| *out = [*value; 3]),
            Colour::Rgb => {
                out.zip(first).zip(second).zip(third).for_each(|(((out, r), g), b)| {
                    *out = [*r, *g, *b];
                });
            }
            Colour::YCbCr => {
                out.zip(first).zip(second).zip(third).for_each(|(((out, luma), cb), cr)| {
                    *out = converted(*luma, *cb, *cr);
                });
            }
        }
    }
}

/// Does libjpeg interpolate this plane? Two columns of chroma are too few for it.
pub(crate) fn is_interpolated(plane: &Plane, width: u32) -> bool {
    plane.shrink[0] == 1 || width.div_ceil(2) > 2
}

/// Row `y` of a plane at the resolution of the image.
fn upsample(plane: &Plane, y: usize, (width, height): (u32, u32), row: &mut Vec<u8>) {
    let [across, down] = plane.shrink.map(|shrink| shrink as usize);
    let columns = (width as usize).div_ceil(across);
    let last = (height as usize).div_ceil(down) - 1;
    let samples = |row: usize| &plane.samples[row * plane.stride..][..columns];
    let near = samples(y / down);
    let pixels = 0..width as usize;
    row.clear();
    if [across, down] == [1, 1] || !is_interpolated(plane, width) {
        return row.extend(pixels.map(|x| near[x / across]));
    }
    let (far, rounding) = match (down, y % 2) {
        (1, _) => (near, [0, 0]),
        (_, 0) => (samples((y / 2).saturating_sub(1)), [8, 7]),
        _ => (samples((y / 2 + 1).min(last)), [8, 7]),
    };
    // Four times the value where rows are mixed.
    let mixed = |x: usize| {
        let near = u32::from(near[x]);
        if down == 1 { near } else { 3 * near + u32::from(far[x]) }
    };
    let value = |x: usize| match (across, down) {
        (1, _) => (mixed(x) + 1 + u32::from(y % 2 == 1)) >> 2,
        (_, down) => {
            let neighbour = if x.is_multiple_of(2) { (x / 2).saturating_sub(1) } else { x / 2 + 1 };
            let sum = 3 * mixed(x / 2) + mixed(neighbour.min(columns - 1));
            if down == 1 {
                (sum + 1 + u32::from(x % 2 == 1)) >> 2
            } else {
                (sum + rounding[x % 2]) >> 4
            }
        }
    };
    row.extend(pixels.map(|x| u8::try_from(value(x)).expect("a mean of bytes")));
}

/// ```text
/// R = Y + 1.402·Cr,  G = Y − 0.34414·Cb − 0.71414·Cr,  B = Y + 1.772·Cb
/// ```
///
/// in units of 2⁻¹⁶, with Cb and Cr around 0.
fn converted(luma: u8, cb: u8, cr: u8) -> [u8; 3] {
    let [luma, cb, cr] = [luma, cb, cr].map(i32::from);
    let (cb, cr) = (cb - 128, cr - 128);
    let parts = [91_881 * cr, -22_554 * cb - 46_802 * cr, 116_130 * cb];
    parts.map(|part| {
        let value = luma + ((part + (1 << 15)) >> 16);
        u8::try_from(value.clamp(0, 255)).expect("clamped to a byte")
    })
}
