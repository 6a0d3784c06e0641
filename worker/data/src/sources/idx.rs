//! IDX files: the format of MNIST, Fashion-MNIST and their family.
//!
//! ```text
//! 0 0 8 D   then D big-endian u32 sizes, then one byte per element
//! ```
//!
//! D is 3 for images (count, rows, columns) and 1 for labels (count). Files may
//! be packed with gzip.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::{Images, Source, Split, bad, open};
use crate::encode;
use crate::error::DataError;
use crate::sample::Label;

/// Limits that keep a damaged header from asking for all memory.
const MAX_SIDE: usize = 4_096;
const MAX_BYTES: usize = 1 << 32;

/// Grayscale images, in memory.
#[derive(Debug)]
struct Grays {
    path: PathBuf,
    rows: u32,
    columns: u32,
    pixels: Vec<u8>,
}

impl Images for Grays {
    fn name(&self, index: usize) -> String {
        format!("{}#{index}", self.path.display())
    }

    fn load(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
        let size = self.rows as usize * self.columns as usize;
        let pixels = &self.pixels[index * size..][..size];
        encode::png(bytes, png::ColorType::Grayscale, (self.columns, self.rows), pixels);
        Ok(())
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}

/// Does `folder` hold files of either half?
pub(super) fn is_in(folder: &Path) -> bool {
    ["train", "t10k"].into_iter().any(|prefix| find_images(folder, prefix).is_some())
}

/// Lists one half.
pub(super) fn list(folder: &Path, split: Split) -> Result<Source, DataError> {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let missing = |what: &str| bad(&folder.join(format!("{prefix}-{what}-ubyte.gz")), "is missing");
    let images = find_images(folder, prefix).ok_or_else(|| missing("images-idx3"))?;
    let labels = find_file(folder, &format!("{prefix}-labels"), "idx1-ubyte")
        .ok_or_else(|| missing("labels-idx1"))?;
    let ([count, rows, columns], pixels) =
        parse(open_packed(&images)?).map_err(|problem| bad(&images, problem))?;
    let ([label_count], label_bytes) =
        parse(open_packed(&labels)?).map_err(|problem| bad(&labels, problem))?;
    if !(1..=MAX_SIDE).contains(&rows) || !(1..=MAX_SIDE).contains(&columns) {
        return Err(bad(&images, format!("has images of {rows}x{columns} pixels")));
    }
    if count != label_count {
        return Err(bad(&labels, format!("has {label_count} labels for {count} images")));
    }
    let side = |pixels| u32::try_from(pixels).expect("at most MAX_SIDE");
    let (rows, columns) = (side(rows), side(columns));
    let classes = label_bytes.iter().max().map_or(0, |last| u32::from(*last) + 1);
    Ok(Source {
        classes: (0..classes).map(|class| class.to_string()).collect(),
        labels: label_bytes.into_iter().map(|label| Label(u32::from(label))).collect(),
        images: Box::new(Grays { path: images, rows, columns, pixels }),
        ignored: Vec::new(),
    })
}

fn find_images(folder: &Path, prefix: &str) -> Option<PathBuf> {
    find_file(folder, &format!("{prefix}-images"), "idx3-ubyte")
}

/// `PREFIX-ENDING` or `PREFIX.ENDING`, packed or not: all four are about.
fn find_file(folder: &Path, prefix: &str, ending: &str) -> Option<PathBuf> {
    ["-", "."]
        .into_iter()
        .flat_map(|dot| ["", ".gz"].map(|gz| folder.join(format!("{prefix}{dot}{ending}{gz}"))))
        .find(|path| path.is_file())
}

fn open_packed(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let file = open(path)?;
    if path.extension().is_some_and(|ending| ending == "gz") {
        return Ok(Box::new(GzDecoder::new(file)));
    }
    Ok(Box::new(file))
}

/// Sizes and elements of an IDX file of bytes in `D` dimensions.
fn parse<const D: usize>(mut file: impl Read) -> Result<([usize; D], Vec<u8>), String> {
    let mut word = || {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).map_err(|error| format!("has no whole header: {error}"))?;
        Ok::<_, String>(bytes)
    };
    let magic = word()?;
    if magic[..3] != [0, 0, 8] || usize::from(magic[3]) != D {
        return Err(format!("begins with {magic:?}, expected [0, 0, 8, {D}]"));
    }
    let mut sizes = [0; D];
    for size in &mut sizes {
        *size = u32::from_be_bytes(word()?) as usize;
    }
    let expected = sizes
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(*size))
        .filter(|bytes| *bytes <= MAX_BYTES)
        .ok_or_else(|| format!("claims {sizes:?} elements, more than {MAX_BYTES}"))?;
    // Grows with what is really there, not with what the header claims.
    let mut elements = Vec::new();
    file.take(expected as u64 + 1)
        .read_to_end(&mut elements)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if elements.len() != expected {
        let found = if elements.len() < expected { "fewer" } else { "more" };
        return Err(format!("holds {found} than the {expected} bytes its header claims"));
    }
    Ok((sizes, elements))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::decode::Decoder;
    use crate::rgb::RgbImage;

    /// An IDX file of these sizes.
    fn idx_file(sizes: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, u8::try_from(sizes.len()).unwrap()];
        file.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
        file.extend(elements);
        file
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn images_come_back_as_grayscale_png_with_their_pixels() {
        let dir = tempfile::tempdir().unwrap();
        let pixels: Vec<u8> = (0..2 * 3 * 4).collect();
        let images = gzipped(&idx_file(&[2, 3, 4], &pixels));
        std::fs::write(dir.path().join("t10k-images-idx3-ubyte.gz"), images).unwrap();
        std::fs::write(dir.path().join("t10k-labels.idx1-ubyte"), idx_file(&[2], &[7, 1])).unwrap();
        let source = list(dir.path(), Split::Test).unwrap();
        assert_eq!(source.labels, [Label(7), Label(1)]);
        let (mut png, mut image) = (Vec::new(), RgbImage::default());
        source.images.load(1, &mut png).unwrap();
        Decoder::default().decode(&png, &mut image).unwrap();
        assert_eq!((image.width, image.height), (4, 3));
        let red: Vec<u8> = image.pixels.iter().copied().step_by(3).collect();
        assert_eq!(red, pixels[12..]);
    }

    #[test]
    fn a_missing_half_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train-images-idx3-ubyte"), []).unwrap();
        let no_labels = list(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(no_labels.contains("train-labels-idx1-ubyte.gz is missing"), "{no_labels}");
        let no_test = list(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(no_test.contains("t10k-images-idx3-ubyte.gz is missing"), "{no_test}");
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused() {
        let huge = idx_file(&[u32::MAX, u32::MAX, u32::MAX], &[]);
        assert!(parse::<3>(&huge[..]).unwrap_err().starts_with("claims"));
        let short = idx_file(&[10], &[1, 2, 3]);
        assert_eq!(
            parse::<1>(&short[..]).unwrap_err(),
            "holds fewer than the 10 bytes its header claims"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _images = parse::<3>(&bytes[..]);
            let _packed = parse::<1>(GzDecoder::new(&bytes[..]));
        }

        #[test]
        fn no_sizes_make_the_reader_panic(
            sizes: [u32; 3],
            elements in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _images = parse::<3>(&idx_file(&sizes, &elements)[..]);
        }
    }
}
