//! One image on its way into a shard: kept, converted or left out, by stated rules.
//!
//! | rule | what it meets | what is done |
//! |---|---|---|
//! | `unreadable` | a file that the system cannot read, or of more than 256 MiB | skipped |
//! | `empty` | 0 bytes | skipped |
//! | `damaged` | a JPEG or PNG that ends early or cannot be decoded (12-bit and arithmetic JPEG too) | skipped |
//! | `foreign` | neither JPEG nor PNG by its first bytes, whatever its name: WebP, GIF, text, … | skipped |
//! | `cmyk` | a JPEG in CMYK or YCCK | converted to an RGB JPEG, without colour profile |
//! | `exif-rotated` | a JPEG whose EXIF says that it is to be turned or mirrored | converted to an upright JPEG |
//! | `sixteen-bit` | a PNG with 16 bits per sample | converted to 8 bits, the upper ones, as PNG |
//! | `animated` | a PNG with more than one picture | converted to its first picture, as PNG |
//! | `misnamed` | a PNG named `.jpg` or a JPEG named `.png` | stored as it is, under the right name |
//! | `misplaced` | a file outside of the classes, or not named as an image | skipped |
//!
//! Everything else is stored byte for byte, unless a short side is asked for: then an image whose short side
//! is longer is resized (bicubic with a = −0.5, antialiased, as Pillow does it) and stored as JPEG. Each JPEG
//! that is written has quality 95 and colour at half resolution. torchvision ignores EXIF; turning costs one
//! more encoding of those few images and makes them what their owners see.

use std::path::Path;

use lockstep_jpeg::PlanarImage;
use serde::{Deserialize, Serialize};

use super::moments::Moments;
use super::oddities::Oddities;
use crate::color;
use crate::decode::Decoder;
use crate::encode;
use crate::finish;
use crate::planes::Planes;
use crate::resize::{Part, Resizer};
use crate::rgb::{RgbImage, to_rgb};
use crate::sources::Images;
use crate::weights::{Reading, Span};

/// Why a file is listed in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OddRule {
    /// The system cannot read it, or it is too long.
    Unreadable,
    /// It has no bytes.
    Empty,
    /// It ends early or cannot be decoded.
    Damaged,
    /// It is neither JPEG nor PNG.
    Foreign,
    /// Its colours are those of print.
    Cmyk,
    /// Its EXIF says that it is to be turned.
    ExifRotated,
    /// It has 16 bits per sample.
    SixteenBit,
    /// It has more than one picture.
    Animated,
    /// Its name says another format.
    Misnamed,
    /// It lies outside of the classes, or is not named as an image.
    Misplaced,
}

/// What became of a file that is listed in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OddAction {
    /// It was left out.
    Skipped,
    /// It was encoded anew.
    Converted,
    /// It was stored as it is, under another name.
    Stored,
}

/// A file that was not simply stored: a line of the report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OddFile {
    /// Where it lies.
    pub name: String,
    /// The rule that it fell under.
    pub rule: OddRule,
    /// What became of it.
    pub done: OddAction,
    /// What is the matter, as the rest of a sentence.
    pub detail: String,
}

/// What there is to store.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) bytes: Vec<u8>,
    pub(super) moments: Moments,
}

/// Prepares images one after the other; keeps its buffers. One per thread.
#[derive(Default)]
pub(super) struct Preparer {
    short_side: Option<u32>,
    decoder: Decoder,
    decoded: PlanarImage,
    resizer: Resizer,
    resized: Planes,
    image: RgbImage,
    other: Vec<u8>,
}

impl Preparer {
    pub(super) fn new(short_side: Option<u32>) -> Self {
        Self { short_side, ..Self::default() }
    }

    /// Loads an image and applies the rules; `None` if it is left out.
    pub(super) fn prepare(
        &mut self,
        images: &dyn Images,
        index: usize,
    ) -> (Option<Prepared>, Vec<OddFile>) {
        let mut odd = Vec::new();
        let mut note = |rule, done, detail: String| {
            odd.push(OddFile { name: images.name(index), rule, done, detail });
        };
        let mut bytes = Vec::new();
        let checked = match images.load(index, &mut bytes) {
            Err(problem) => Err((OddRule::Unreadable, problem)),
            Ok(()) => self.apply(&mut bytes, &images.name(index), &mut note),
        };
        let prepared = match checked {
            Ok(()) => Some(Prepared { moments: Moments::of(&self.image), bytes }),
            Err((rule, problem)) => {
                note(rule, OddAction::Skipped, problem);
                None
            }
        };
        (prepared, odd)
    }

    /// Leaves in `bytes` what is stored and in `self.image` what it shows.
    fn apply(
        &mut self,
        bytes: &mut Vec<u8>,
        name: &str,
        note: &mut dyn FnMut(OddRule, OddAction, String),
    ) -> Result<(), (OddRule, String)> {
        let open = self.decoder.open(bytes);
        open.and_then(|open| open.decode_all(&mut self.decoded))
            .map_err(|problem| refusal(bytes, problem))?;
        if let Some(detail) = misnamed(bytes, name) {
            note(OddRule::Misnamed, OddAction::Stored, detail.to_owned());
        }
        let odd = Oddities::of(bytes);
        let rules = [
            (odd.cmyk, OddRule::Cmyk, "is in CMYK; converted to RGB"),
            (odd.turn.is_some(), OddRule::ExifRotated, "is to be turned; stored upright"),
            (odd.sixteen_bit, OddRule::SixteenBit, "has 16 bits per sample; converted to 8"),
            (odd.animated, OddRule::Animated, "is animated; its first picture is stored"),
        ];
        for (_, rule, detail) in rules.into_iter().filter(|(applies, ..)| *applies) {
            note(rule, OddAction::Converted, detail.to_owned());
        }
        let resized = self.shrink();
        if let Some(turn) = odd.turn {
            let sides = (self.image.width, self.image.height);
            let sides = turn.apply(&self.image.pixels, sides, &mut self.other);
            std::mem::swap(&mut self.image.pixels, &mut self.other);
            (self.image.width, self.image.height) = sides;
        }
        if resized || odd.cmyk || odd.turn.is_some() {
            let sides = (self.image.width, self.image.height);
            encode::jpeg(bytes, sides, &self.image.pixels)
                .map_err(|problem| (OddRule::Unreadable, problem))?;
            // What training will see is what counts for mean and deviation.
            self.decoder
                .decode(bytes, &mut self.image)
                .map_err(|problem| (OddRule::Damaged, problem))?;
        } else if odd.sixteen_bit || odd.animated {
            let sides = (self.image.width, self.image.height);
            encode::png(bytes, png::ColorType::Rgb, sides, &self.image.pixels);
        }
        Ok(())
    }

    /// Shows what was decoded, its short side brought to the length asked for; `false` if it is not longer.
    fn shrink(&mut self) -> bool {
        let (width, height) = (self.decoded.width, self.decoded.height);
        let short = width.min(height);
        let Some(side) = self.short_side.filter(|side| *side < short) else {
            to_rgb(&self.decoded, &mut self.image);
            return false;
        };
        // As torchvision's Resize: the long side is rounded down.
        let scaled = |length: u32| u64::from(length) * u64::from(side) / u64::from(short);
        let sides = [width, height]
            .map(|length| u32::try_from(scaled(length)).expect("no longer than before"));
        let whole = Part { columns: Span::alone(0, width), rows: Span::alone(0, height) };
        let planes = &mut self.resized;
        self.resizer.resize(&self.decoded, &whole, sides.into(), Reading::Forward, planes);
        (self.image.width, self.image.height) = sides.into();
        self.image.pixels.resize(3 * planes.pixels(), 0);
        color::convert(planes);
        finish::round(planes, self.image.pixels.as_chunks_mut().0);
        true
    }
}

/// The rule for bytes that cannot be decoded, and the sentence for them.
fn refusal(bytes: &[u8], problem: String) -> (OddRule, String) {
    let foreign = match bytes {
        [] => return (OddRule::Empty, problem),
        [0xFF, 0xD8, ..] | [0x89, b'P', b'N', b'G', ..] => return (OddRule::Damaged, problem),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a WebP",
        [b'G', b'I', b'F', b'8', ..] => "a GIF",
        [b'B', b'M', ..] => "a BMP",
        [b'I', b'I', 0x2A, 0, ..] | [b'M', b'M', 0, 0x2A, ..] => "a TIFF",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF, HEIC or video",
        _ => return (OddRule::Foreign, problem),
    };
    (OddRule::Foreign, format!("is {foreign}, neither JPEG nor PNG"))
}

/// What is wrong with the name of an image, if its ending is one of the other format.
fn misnamed(bytes: &[u8], name: &str) -> Option<&'static str> {
    let ending = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
    match (bytes.starts_with(b"\x89PNG"), ending.as_str()) {
        (true, "jpg" | "jpeg") => Some("is a PNG"),
        (false, "png") => Some("is a JPEG"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::oddities::tests::rotated;
    use super::*;

    /// One image, in memory.
    #[derive(Debug)]
    struct One(&'static str, Vec<u8>);

    impl Images for One {
        fn name(&self, _index: usize) -> String {
            self.0.to_owned()
        }

        fn load(&self, _index: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
            bytes.clone_from(&self.1);
            Ok(())
        }

        fn files(&self) -> Vec<&Path> {
            Vec::new()
        }
    }

    const WIDTH: u16 = 40;
    const HEIGHT: u16 = 24;

    fn jpeg_of(color: jpeg_encoder::ColorType, pixel: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 100)
            .encode(&pixel.repeat(usize::from(WIDTH) * usize::from(HEIGHT)), WIDTH, HEIGHT, color)
            .unwrap();
        bytes
    }

    fn jpeg() -> Vec<u8> {
        jpeg_of(jpeg_encoder::ColorType::Rgb, &[200, 100, 50])
    }

    fn png_of(depth: png::BitDepth, frames: u32, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(depth);
        if frames > 1 {
            encoder.set_animated(frames, 0).unwrap();
        }
        let mut writer = encoder.write_header().unwrap();
        for _ in 0..frames {
            writer.write_image_data(pixels).unwrap();
        }
        drop(writer);
        bytes
    }

    fn prepare(
        name: &'static str,
        bytes: Vec<u8>,
        short_side: Option<u32>,
    ) -> (Option<Vec<u8>>, Vec<(OddRule, OddAction)>) {
        let (prepared, odd) = Preparer::new(short_side).prepare(&One(name, bytes), 0);
        let odd = odd.into_iter().map(|odd| (odd.rule, odd.done)).collect();
        (prepared.map(|prepared| prepared.bytes), odd)
    }

    fn decoded(bytes: &[u8]) -> RgbImage {
        let mut image = RgbImage::default();
        Decoder::default().decode(bytes, &mut image).unwrap();
        image
    }

    #[test]
    fn an_image_that_is_not_odd_is_stored_as_it_is() {
        let png = png_of(png::BitDepth::Eight, 1, &[7, 9]);
        for (name, bytes) in [("a.JPEG", jpeg()), ("a.png", png), ("x#1", jpeg())] {
            assert_eq!(prepare(name, bytes.clone(), Some(24)), (Some(bytes), vec![]));
        }
    }

    #[test]
    fn what_cannot_be_used_is_skipped_by_its_rule() {
        let (whole, header) = (jpeg(), jpeg()[..300].to_vec());
        let cut = whole[..whole.len() - 2].to_vec();
        let cases: [(Vec<u8>, OddRule, &str); 7] = [
            (vec![], OddRule::Empty, "is empty"),
            (cut, OddRule::Damaged, "ends in the middle"),
            (header, OddRule::Damaged, "is a damaged JPEG"),
            (b"RIFF\0\0\0\0WEBPVP8 ".to_vec(), OddRule::Foreign, "is a WebP, neither"),
            (b"GIF89a".to_vec(), OddRule::Foreign, "is a GIF, neither"),
            (b"hello".to_vec(), OddRule::Foreign, "is neither JPEG nor PNG"),
            (b"\x89PNG\r\n\x1a\n".to_vec(), OddRule::Damaged, "is a damaged PNG"),
        ];
        for (bytes, rule, words) in cases {
            let (prepared, odd) = Preparer::new(None).prepare(&One("a.jpg", bytes), 0);
            assert!(prepared.is_none());
            assert_eq!((odd[0].rule, odd[0].done, odd.len()), (rule, OddAction::Skipped, 1));
            assert!(odd[0].detail.contains(words), "{}", odd[0].detail);
        }
    }

    #[test]
    fn print_colours_become_those_of_light() {
        use jpeg_encoder::ColorType::{Cmyk, CmykAsYcck};
        for color in [Cmyk, CmykAsYcck] {
            let (stored, odd) = prepare("a.jpg", jpeg_of(color, &[0, 255, 255, 55]), None);
            assert_eq!(odd, [(OddRule::Cmyk, OddAction::Converted)], "{color:?}");
            let stored = stored.unwrap();
            assert_eq!(Oddities::of(&stored), Oddities::default());
            let image = decoded(&stored);
            let [r, g, b] = image.pixels.as_chunks().0[100];
            assert!(r.abs_diff(200) < 4 && g < 4 && b < 4, "{color:?}: {:?}", [r, g, b]);
        }
    }

    #[test]
    fn a_rotated_photograph_is_stored_upright() {
        let (stored, odd) = prepare("a.jpg", rotated(&jpeg(), 6), None);
        assert_eq!(odd, [(OddRule::ExifRotated, OddAction::Converted)]);
        let stored = stored.unwrap();
        let image = decoded(&stored);
        assert_eq!((image.width, image.height), (HEIGHT.into(), WIDTH.into()));
        assert_eq!(Oddities::of(&stored), Oddities::default(), "it would be turned twice");
        assert_eq!(prepare("a.jpg", rotated(&jpeg(), 1), None).1, []);
    }

    #[test]
    fn deep_and_animated_pngs_become_plain_ones_without_loss() {
        use png::BitDepth::{Eight, Sixteen};
        let cases = [
            (png_of(Sixteen, 1, &[7, 200, 9, 1]), OddRule::SixteenBit),
            (png_of(Eight, 2, &[7, 9]), OddRule::Animated),
        ];
        for (bytes, rule) in cases {
            let (stored, odd) = prepare("a.png", bytes, None);
            assert_eq!(odd, [(rule, OddAction::Converted)]);
            let stored = stored.unwrap();
            assert_eq!(Oddities::of(&stored), Oddities::default());
            assert_eq!(decoded(&stored).pixels, [7, 7, 7, 9, 9, 9]);
        }
    }

    #[test]
    fn a_png_named_jpg_is_kept_and_listed_under_every_rule_that_it_meets() {
        let png = png_of(png::BitDepth::Eight, 1, &[7, 9]);
        let stored = (OddRule::Misnamed, OddAction::Stored);
        assert_eq!(prepare("a.jpg", png.clone(), None), (Some(png), vec![stored]));
        assert_eq!(prepare("a.PNG", jpeg(), None), (Some(jpeg()), vec![stored]));
        let deep = png_of(png::BitDepth::Sixteen, 1, &[7, 200, 9, 1]);
        let converted = (OddRule::SixteenBit, OddAction::Converted);
        assert_eq!(prepare("a.jpeg", deep, None).1, [stored, converted]);
    }

    #[test]
    fn only_a_longer_short_side_is_shortened() {
        let (stored, odd) = prepare("a.jpg", jpeg(), Some(12));
        assert_eq!(odd, []);
        let image = decoded(&stored.unwrap());
        assert_eq!((image.width, image.height), (20, 12));
        let [r, g, b] = image.pixels.as_chunks().0[30];
        assert!([r, g, b].iter().zip([200, 100, 50]).all(|(a, b)| a.abs_diff(b) < 4));
    }
}
