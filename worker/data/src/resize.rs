//! Antialiased bicubic resizing of 8-bit RGB, as Pillow and torchvision do it.
//!
//! Rows first, then columns, in two calls: pixels are clipped to 8 bits in
//! between, so the order shows where the cubic overshoots at hard edges (up to
//! 16/255 in single values). The library alone would do columns first.

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, IntoImageView, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::RgbImage;
use crate::view::CropBox;

/// Resizes; keeps its buffers between images.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    resizer: Resizer,
    /// The image after its rows were resized.
    narrowed: Vec<u8>,
}

impl Scaler {
    /// Replaces `out` with the pixels of `crop`, resized to `width` × `height`.
    ///
    /// Bicubic with a = −0.5 (Catmull-Rom), widened by the scale when shrinking,
    /// rounded to 8 bits. Pixels outside the crop have no influence.
    ///
    /// # Panics
    ///
    /// If the crop is empty or leaves the image.
    pub(crate) fn resize(
        &mut self,
        image: &RgbImage,
        crop: CropBox,
        size: (u32, u32),
        out: &mut Vec<u8>,
    ) {
        let CropBox { left, top, width, height } = crop;
        let whole = source(&image.pixels, image.width, image.height);
        let part = CroppedImage::new(&whole, left, top, width, height)
            .expect("the crop lies in the image");
        let columns = (0.0, f64::from(width));
        let rows = (0.0, f64::from(height));
        self.passes(&part, (columns, rows), size, out);
    }

    /// As [`Scaler::resize`], for a part given as (start, length) in fractions of
    /// pixels; here the pixels around the part do have influence.
    ///
    /// # Panics
    ///
    /// If the part is empty or leaves the image.
    pub(crate) fn resize_part(
        &mut self,
        image: &RgbImage,
        part: (Span, Span),
        size: (u32, u32),
        out: &mut Vec<u8>,
    ) {
        let whole = source(&image.pixels, image.width, image.height);
        self.passes(&whole, part, size, out);
    }

    fn passes(
        &mut self,
        image: &impl IntoImageView,
        ((left, part_width), (top, part_height)): (Span, Span),
        (width, height): (u32, u32),
        out: &mut Vec<u8>,
    ) {
        let full_height = image.height();
        let mut narrowed = target(&mut self.narrowed, width, full_height);
        let columns = bicubic().crop(left, 0.0, part_width, f64::from(full_height));
        self.resizer.resize(image, &mut narrowed, &columns).expect("the part lies in the image");

        let narrowed = source(&self.narrowed, width, full_height);
        let rows = bicubic().crop(0.0, top, f64::from(width), part_height);
        let mut out = target(out, width, height);
        self.resizer.resize(&narrowed, &mut out, &rows).expect("the part lies in the image");
    }
}

/// Start and length along one side, in pixels.
pub(crate) type Span = (f64, f64);

fn bicubic() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false)
}

fn source(pixels: &[u8], width: u32, height: u32) -> ImageRef<'_> {
    ImageRef::new(width, height, pixels, PixelType::U8x3).expect("three bytes per pixel")
}

fn target(out: &mut Vec<u8>, width: u32, height: u32) -> Image<'_> {
    out.resize(3 * width as usize * height as usize, 0);
    Image::from_slice_u8(width, height, out, PixelType::U8x3).expect("three bytes per pixel")
}
