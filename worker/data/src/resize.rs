//! Antialiased bicubic resizing of 8-bit RGB, as Pillow and torchvision do it.

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::RgbImage;
use crate::view::CropBox;

/// Resizes; keeps its buffers between images.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    resizer: Resizer,
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
        (width, height): (u32, u32),
        out: &mut Vec<u8>,
    ) {
        let source = source(image);
        let CropBox { left, top, width: crop_width, height: crop_height } = crop;
        let source = CroppedImage::new(&source, left, top, crop_width, crop_height)
            .expect("the crop lies in the image");
        let mut target = target(out, width, height);
        self.resizer.resize(&source, &mut target, &bicubic()).expect("both images are RGB");
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
        (left, part_width): (f64, f64),
        (top, part_height): (f64, f64),
        (width, height): (u32, u32),
        out: &mut Vec<u8>,
    ) {
        let source = source(image);
        let mut target = target(out, width, height);
        let options = bicubic().crop(left, top, part_width, part_height);
        self.resizer.resize(&source, &mut target, &options).expect("the part lies in the image");
    }
}

fn bicubic() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false)
}

fn source(image: &RgbImage) -> ImageRef<'_> {
    ImageRef::new(image.width, image.height, &image.pixels, PixelType::U8x3)
        .expect("a decoded image has three bytes per pixel")
}

fn target(out: &mut Vec<u8>, width: u32, height: u32) -> Image<'_> {
    out.resize(3 * width as usize * height as usize, 0);
    Image::from_slice_u8(width, height, out, PixelType::U8x3).expect("the output was just sized")
}
