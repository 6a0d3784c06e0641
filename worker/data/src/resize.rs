//! Antialiased bicubic resizing of 8-bit RGB, as Pillow and torchvision do it.
//!
//! Rows first, then columns, in two calls: pixels are clipped to 8 bits in
//! between, so the order shows where the cubic overshoots at hard edges (up to
//! 16/255 in single values). The library alone would do columns first.
//!
//! Typed views of one kind keep the library's code for the other dozen pixel
//! types, which takes minutes to compile, out of this crate.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ImageView, ResizeAlg, ResizeOptions, Resizer};

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
        let columns = (0.0, f64::from(crop.width));
        let rows = (0.0, f64::from(crop.height));
        let part = part_of(&image.pixels, (image.width, image.height), crop);
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
        let whole = whole(&image.pixels, (image.width, image.height));
        self.passes(&whole, part, size, out);
    }

    fn passes(
        &mut self,
        image: &Pixels<'_>,
        ((left, part_width), (top, part_height)): (Span, Span),
        (width, height): (u32, u32),
        out: &mut Vec<u8>,
    ) {
        let Self { resizer, narrowed } = self;
        let mut pass = |from: &Pixels<'_>, to: &mut TypedImage<'_, U8x3>, options| {
            resizer.resize_typed(from, to, &options).expect("the part lies in the image");
        };
        let full_height = image.height();
        let columns = bicubic().crop(left, 0.0, part_width, f64::from(full_height));
        pass(image, &mut target(narrowed, width, full_height), columns);
        let rows = bicubic().crop(0.0, top, f64::from(width), part_height);
        pass(&whole(narrowed, (width, full_height)), &mut target(out, width, height), rows);
    }
}

/// Start and length along one side, in pixels.
pub(crate) type Span = (f64, f64);

/// A part of an image, or all of it.
type Pixels<'a> = TypedCroppedImage<'a, TypedImageRef<'a, U8x3>>;

fn bicubic() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
}

fn whole(pixels: &[u8], (width, height): (u32, u32)) -> Pixels<'_> {
    part_of(pixels, (width, height), CropBox { left: 0, top: 0, width, height })
}

fn part_of(pixels: &[u8], (width, height): (u32, u32), part: CropBox) -> Pixels<'_> {
    let image = TypedImageRef::from_buffer(width, height, pixels).expect("three bytes per pixel");
    TypedCroppedImage::new(image, part.left, part.top, part.width, part.height)
        .expect("the crop lies in the image")
}

fn target(out: &mut Vec<u8>, width: u32, height: u32) -> TypedImage<'_, U8x3> {
    out.resize(3 * width as usize * height as usize, 0);
    TypedImage::from_buffer(width, height, out).expect("three bytes per pixel")
}
