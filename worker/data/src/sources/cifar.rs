//! The binary files of CIFAR-10 and CIFAR-100: records of one length, one after the other.
//!
//! ```text
//! CIFAR-10    class                then 3072 bytes: 32×32 red, then green, then blue
//! CIFAR-100   superclass, class    then the same; the class is the fine one
//! ```

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Images, Source, Split, bad, open};
use crate::encode;
use crate::error::DataError;
use crate::sample::Label;

const SIDE: u32 = 32;
const PLANE: usize = 1_024;
const PIXELS: usize = 3 * PLANE;

/// One of the two data sets.
#[derive(Debug)]
struct Variant {
    classes: u32,
    /// Bytes before the pixels; the class is the last of them.
    label_bytes: usize,
    /// Class names, one per line; numbers stand in where the file is missing.
    names: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
}

const CIFAR_10: Variant = Variant {
    classes: 10,
    label_bytes: 1,
    names: "batches.meta.txt",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: &["test_batch.bin"],
};

const CIFAR_100: Variant = Variant {
    classes: 100,
    label_bytes: 2,
    names: "fine_label_names.txt",
    train: &["train.bin"],
    test: &["test.bin"],
};

/// Does `folder` hold any of the files?
pub(super) fn is_in(folder: &Path) -> bool {
    [CIFAR_10, CIFAR_100].iter().any(|variant| variant.is_in(folder))
}

/// Lists one half.
pub(super) fn list(folder: &Path, split: Split) -> Result<Source, DataError> {
    let variant = [CIFAR_10, CIFAR_100].into_iter().find(|variant| variant.is_in(folder));
    let expected = "holds no CIFAR binaries; expected data_batch_1.bin to data_batch_5.bin and \
                    test_batch.bin, or train.bin and test.bin";
    let variant = variant.ok_or_else(|| bad(folder, expected))?;
    let files = if split == Split::Train { variant.train } else { variant.test };
    let mut labels = Vec::new();
    let mut images = Records { label_bytes: variant.label_bytes, files: Vec::new() };
    for name in files {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(bad(&path, "is missing"));
        }
        let file = open(&path)?;
        let found = read_labels(BufReader::new(&file), &variant).map_err(|p| bad(&path, p))?;
        labels.extend(found);
        images.files.push(RecordFile { path, file, end: labels.len() });
    }
    Ok(Source {
        classes: variant.class_names(folder)?,
        labels,
        images: Box::new(images),
        ignored: Vec::new(),
    })
}

impl Variant {
    fn is_in(&self, folder: &Path) -> bool {
        self.train.iter().chain(self.test).any(|name| folder.join(name).is_file())
    }

    fn class_names(&self, folder: &Path) -> Result<Vec<String>, DataError> {
        let path = folder.join(self.names);
        if !path.is_file() {
            return Ok((0..self.classes).map(|class| class.to_string()).collect());
        }
        let text = std::fs::read_to_string(&path).map_err(DataError::io("read", &path))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let names: Vec<_> = lines.map(str::to_owned).collect();
        if names.len() != self.classes as usize {
            let (found, expected) = (names.len(), self.classes);
            return Err(bad(&path, format!("holds {found} class names, expected {expected}")));
        }
        Ok(names)
    }
}

/// The class of every record; checks that all are whole.
fn read_labels(mut file: impl Read, variant: &Variant) -> Result<Vec<Label>, String> {
    let mut record = vec![0; variant.label_bytes + PIXELS];
    let mut labels = Vec::new();
    loop {
        let mut filled = 0;
        while filled < record.len() {
            match file.read(&mut record[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot be read: {error}")),
            }
        }
        if filled == 0 {
            return Ok(labels);
        }
        let (number, bytes) = (labels.len(), record.len());
        if filled < bytes {
            return Err(format!("ends after {filled} of the {bytes} bytes of record {number}"));
        }
        let class = u32::from(record[variant.label_bytes - 1]);
        if class >= variant.classes {
            let classes = variant.classes;
            return Err(format!("gives record {number} the class {class} of {classes}"));
        }
        labels.push(Label(class));
    }
}

/// Open files of records, laid end to end.
#[derive(Debug)]
struct Records {
    label_bytes: usize,
    files: Vec<RecordFile>,
}

#[derive(Debug)]
struct RecordFile {
    path: PathBuf,
    file: File,
    /// Records in this and all files before.
    end: usize,
}

impl Records {
    /// The file of an image and its number in that file.
    fn place(&self, index: usize) -> (&RecordFile, usize) {
        let file = self.files.partition_point(|file| file.end <= index);
        let before = file.checked_sub(1).map_or(0, |before| self.files[before].end);
        (&self.files[file], index - before)
    }
}

impl Images for Records {
    fn name(&self, index: usize) -> String {
        let (file, number) = self.place(index);
        format!("{}#{number}", file.path.display())
    }

    fn load(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
        let (RecordFile { file, .. }, number) = self.place(index);
        let mut planes = [0; PIXELS];
        let start = number * (self.label_bytes + PIXELS) + self.label_bytes;
        file.read_exact_at(&mut planes, start as u64)
            .map_err(|error| format!("cannot be read: {error}"))?;
        let rgb: Vec<u8> =
            (0..PLANE).flat_map(|i| [0, 1, 2].map(|plane| planes[plane * PLANE + i])).collect();
        encode::png(bytes, png::ColorType::Rgb, (SIDE, SIDE), &rgb);
        Ok(())
    }

    fn files(&self) -> Vec<&Path> {
        self.files.iter().map(|file| file.path.as_path()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::Decoder;
    use crate::rgb::RgbImage;

    fn record(labels: &[u8], seed: usize) -> Vec<u8> {
        let pixels = (0..PIXELS).map(|i| u8::try_from((i * 7 + seed) % 251).unwrap());
        labels.iter().copied().chain(pixels).collect()
    }

    #[test]
    fn records_of_all_files_come_back_as_png_with_their_pixels() {
        let dir = tempfile::tempdir().unwrap();
        for (number, name) in CIFAR_10.train.iter().enumerate() {
            let class = u8::try_from(number).unwrap();
            let records = [record(&[class], number), record(&[9], number + 50)].concat();
            std::fs::write(dir.path().join(name), records).unwrap();
        }
        let source = list(dir.path(), Split::Train).unwrap();
        let labels: Vec<_> = source.labels.iter().map(|label| label.0).collect();
        assert_eq!(labels, [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]);
        assert_eq!(source.classes[9], "9");
        assert!(source.images.name(5).ends_with("data_batch_3.bin#1"), "{}", source.images.name(5));
        let (mut png, mut image) = (Vec::new(), RgbImage::default());
        source.images.load(5, &mut png).unwrap();
        Decoder::default().decode(&png, &mut image).unwrap();
        let planes = &record(&[9], 52)[1..];
        assert_eq!((image.width, image.height), (32, 32));
        assert_eq!(image.pixels[3 * 33..][..3], [planes[33], planes[1_057], planes[2_081]]);
    }

    #[test]
    fn the_fine_class_of_cifar_100_counts_and_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("test.bin"), record(&[3, 77], 0)).unwrap();
        let names: Vec<_> = (0..100).map(|class| format!("class-{class}\n")).collect();
        std::fs::write(dir.path().join(CIFAR_100.names), names.concat()).unwrap();
        let source = list(dir.path(), Split::Test).unwrap();
        assert_eq!(source.labels, [Label(77)]);
        assert_eq!(source.classes[77], "class-77");
        let missing = list(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(missing.contains("train.bin is missing"), "{missing}");
    }

    #[test]
    fn half_a_record_or_a_class_too_high_is_named() {
        let cut = [record(&[1], 0), vec![0; 100]].concat();
        let error = read_labels(&cut[..], &CIFAR_10).unwrap_err();
        assert_eq!(error, "ends after 100 of the 3073 bytes of record 1");
        let error = read_labels(&record(&[10], 0)[..], &CIFAR_10).unwrap_err();
        assert_eq!(error, "gives record 0 the class 10 of 10");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..7_000)) {
            for variant in [CIFAR_10, CIFAR_100] {
                let record = variant.label_bytes + PIXELS;
                if let Ok(labels) = read_labels(&bytes[..], &variant) {
                    prop_assert_eq!(labels.len() * record, bytes.len());
                }
            }
        }
    }
}
