//! Small RGB pictures: of stored images and views, side by side, with frames and text, as PNG.

use font8x8::legacy::BASIC_LEGACY;
use lockstep_data::RgbImage;

/// Pixels per letter, across and down.
pub(crate) const LETTER: usize = 8;

/// Red, green, blue.
pub(crate) type Ink = [u8; 3];

/// Part of a picture, in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// A picture: rows from the top. What is drawn beyond its edges is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<Ink>,
}

impl Bitmap {
    /// All of one colour.
    pub(crate) fn blank(width: usize, height: usize, ink: Ink) -> Self {
        Self { width, height, pixels: vec![ink; width * height] }
    }

    /// A stored image.
    pub(crate) fn of_image(image: &RgbImage) -> Self {
        let pixels = image.pixels.as_chunks::<3>().0.to_vec();
        Self { width: image.width as usize, height: image.height as usize, pixels }
    }

    /// A normalized square view (NHWC) of `size` pixels.
    pub(crate) fn of_view(view: &[f32], size: u32, mean: [f32; 3], std: [f32; 3]) -> Self {
        let pixel = |pixel: &[f32; 3]| {
            let byte = |channel: usize| byte(pixel[channel] * std[channel] + mean[channel]);
            [byte(0), byte(1), byte(2)]
        };
        let pixels = view.as_chunks::<3>().0.iter().map(pixel).collect();
        Self { width: size as usize, height: size as usize, pixels }
    }

    /// The picture with a long side of at most `longest`.
    pub(crate) fn shrunk_to(self, longest: usize) -> Self {
        if self.width.max(self.height) <= longest { self } else { self.fitted(longest) }
    }

    /// The picture with a long side of `longest`: means where it shrinks, blocks where it grows.
    pub(crate) fn fitted(&self, longest: usize) -> Self {
        let side = |side: usize| (side * longest / self.width.max(self.height)).max(1);
        let (width, height) = (side(self.width), side(self.height));
        let part = |index: usize, old: usize, new: usize| {
            let start = index * old / new;
            start..((index + 1) * old / new).max(start + 1)
        };
        let mut pixels = Vec::with_capacity(width * height);
        for rows in (0..height).map(|y| part(y, self.height, height)) {
            for columns in (0..width).map(|x| part(x, self.width, width)) {
                let rows = rows.clone().map(|y| &self.row(y)[columns.clone()]);
                pixels.push(mean(rows));
            }
        }
        Self { width, height, pixels }
    }

    /// Draws another picture with its upper left corner at (`left`, `top`).
    pub(crate) fn paste(&mut self, other: &Self, left: usize, top: usize) {
        for y in 0..other.height {
            for (x, ink) in other.row(y).iter().enumerate() {
                self.dot(left + x, top + y, *ink);
            }
        }
    }

    /// Draws the outline of `frame`.
    pub(crate) fn outline(&mut self, frame: Frame, ink: Ink) {
        let Frame { left, top, width, height } = frame;
        for x in left..left + width {
            self.dot(x, top, ink);
            self.dot(x, top + height - 1, ink);
        }
        for y in top..top + height {
            self.dot(left, y, ink);
            self.dot(left + width - 1, y, ink);
        }
    }

    /// Writes a line; letters beyond ASCII become question marks.
    pub(crate) fn write(&mut self, line: &str, left: usize, top: usize, ink: Ink) {
        for (place, letter) in line.chars().enumerate() {
            let glyph = BASIC_LEGACY.get(letter as usize).unwrap_or(&BASIC_LEGACY['?' as usize]);
            for (y, row) in glyph.iter().enumerate() {
                for x in (0..LETTER).filter(|x| row >> x & 1 == 1) {
                    self.dot(left + LETTER * place + x, top + y, ink);
                }
            }
        }
    }

    /// The picture as PNG.
    pub(crate) fn png(&self) -> Vec<u8> {
        let side = |side| u32::try_from(side).expect("a picture in memory");
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Rgb);
        let written = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(self.pixels.as_flattened())?;
            writer.finish()
        });
        written.expect("a picture of known size goes into memory");
        bytes
    }

    fn row(&self, y: usize) -> &[Ink] {
        &self.pixels[y * self.width..(y + 1) * self.width]
    }

    fn dot(&mut self, x: usize, y: usize, ink: Ink) {
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = ink;
        }
    }
}

fn mean<'a>(rows: impl Iterator<Item = &'a [Ink]>) -> Ink {
    let (mut sums, mut count) = ([0_usize; 3], 0);
    for pixel in rows.flatten() {
        count += 1;
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += usize::from(*value);
        }
    }
    sums.map(|sum| u8::try_from((sum + count / 2) / count).expect("a mean of bytes"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
fn byte(fraction: f32) -> u8 {
    (fraction * 255.0).round().clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Ink = [0; 3];
    const WHITE: Ink = [255; 3];

    #[test]
    fn a_view_is_turned_back_into_the_pixels_it_was_made_of() {
        let (mean, std) = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]);
        let pixels: Vec<Ink> = vec![[0, 128, 255], [9, 8, 7], [250, 3, 77], [1, 2, 3]];
        let normalized =
            pixels.as_flattened().iter().enumerate().map(|(index, value)| {
                (f32::from(*value) / 255.0 - mean[index % 3]) / std[index % 3]
            });
        let view: Vec<f32> = normalized.collect();
        assert_eq!(Bitmap::of_view(&view, 2, mean, std).pixels, pixels);
    }

    #[test]
    fn a_large_picture_shrinks_to_means_and_a_small_one_grows_to_blocks() {
        let mut picture = Bitmap::blank(1_000, 10, BLACK);
        picture.pixels[..4_000].fill(WHITE);
        let small = picture.clone().shrunk_to(250);
        assert_eq!((small.width, small.height), (250, 2));
        assert_eq!(small.row(0)[0], [204; 3], "four white rows of five");
        assert_eq!(small.row(1)[0], BLACK);
        assert_eq!(picture.clone().shrunk_to(1_000), picture);

        let mut picture = Bitmap::blank(2, 1, BLACK);
        picture.dot(1, 0, WHITE);
        let large = picture.fitted(6);
        assert_eq!((large.width, large.height), (6, 3));
        assert_eq!(large.row(2), [BLACK, BLACK, BLACK, WHITE, WHITE, WHITE]);
    }

    #[test]
    fn letters_and_outlines_are_drawn_where_they_were_asked_for() {
        let mut picture = Bitmap::blank(24, 12, BLACK);
        picture.write("-é", 2, 2, WHITE);
        let lit = |picture: &Bitmap| picture.pixels.iter().filter(|ink| **ink == WHITE).count();
        let dash = BASIC_LEGACY['-' as usize].iter().map(|row| row.count_ones()).sum::<u32>();
        let question = BASIC_LEGACY['?' as usize].iter().map(|row| row.count_ones()).sum::<u32>();
        assert_eq!(lit(&picture), (dash + question) as usize);
        assert!((0..12).all(|y| picture.row(y)[..2] == [BLACK; 2]), "nothing left of the text");

        let mut picture = Bitmap::blank(10, 10, BLACK);
        picture.outline(Frame { left: 2, top: 3, width: 4, height: 5 }, WHITE);
        assert_eq!(lit(&picture), 2 * 4 + 2 * 3);
        // Beyond the edge there is nothing to draw on.
        picture.outline(Frame { left: 8, top: 8, width: 40, height: 40 }, WHITE);
        picture.paste(&Bitmap::blank(30, 30, WHITE), 9, 0);
        assert_eq!(picture.pixels.len(), 100);
    }
}
