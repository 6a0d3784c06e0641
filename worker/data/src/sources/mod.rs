//! Where images to pack come from.
//!
//! ```text
//!  a folder per class ─┐
//!  IDX files           │
//!  CIFAR binaries      ├─▶ classes, labels, and images by index: (name, class, bytes)
//!  ImageNet train tar  │
//!  ImageNet val tar   ─┘
//! ```
//!
//! All become the same list, of images that can be loaded one at a time, in any order and by several
//! threads. Listing is sorted, so the same input gives the same list. Nothing is unpacked to the disk.

mod cifar;
mod folders;
mod ground_truth;
mod idx;
mod imagenet;

use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::error::DataError;
use crate::sample::Label;

const IMAGE_ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];
/// Why a file whose name has none of them is left out.
const NO_IMAGE_NAME: &str = "is not named .jpg, .jpeg or .png";
/// Longest file that is taken for an image; with the threads' queues it bounds the memory of packing.
const MAX_IMAGE_BYTES: u64 = 1 << 28;

/// Which half of a data set of the MNIST or CIFAR family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// `train-images-…`, `data_batch_….bin`, `train.bin`
    Train,
    /// `t10k-images-…`, `test_batch.bin`, `test.bin`
    Test,
}

/// The forms that a source can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder with a folder of images per class.
    Folders,
    /// A folder with IDX files of the MNIST family.
    Idx,
    /// A folder with binary files of CIFAR-10 or CIFAR-100.
    Cifar,
    /// The tar of ILSVRC2012's training images: a tar per class, named by synset.
    ImagenetTrain,
    /// The tar of ILSVRC2012's validation images, with classes in a file of their own.
    ImagenetVal,
}

/// How to read a source where its path does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Its form; told from what the path holds if not given.
    pub kind: Option<SourceKind>,
    /// Which half of IDX or CIFAR files; train if not given.
    pub split: Option<Split>,
    /// For validation images: a file with the class of each, one per line, in the order of their names.
    pub ground_truth: Option<PathBuf>,
    /// The classes that a ground truth counts in: a file with one per line, or a packed data set.
    pub synsets: Option<PathBuf>,
}

/// What there is to pack.
#[derive(Debug)]
pub(crate) struct Source {
    /// Class names in label order.
    pub(crate) classes: Vec<String>,
    /// The label of each image.
    pub(crate) labels: Vec<Label>,
    /// The images, in the same order.
    pub(crate) images: Box<dyn Images>,
    /// Files that are no images by name or place, and why.
    pub(crate) ignored: Vec<(String, &'static str)>,
}

/// Images that are not loaded yet.
pub(crate) trait Images: Debug + Sync {
    /// Names an image for the report.
    fn name(&self, index: usize) -> String;

    /// Replaces `bytes` with the stored form of an image.
    ///
    /// # Errors
    ///
    /// Why it cannot be had, as the rest of a sentence.
    fn load(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), String>;

    /// The files that all images lie in.
    fn files(&self) -> Vec<&Path>;
}

impl Source {
    /// Lists what is in `input`.
    pub(crate) fn find(input: &Path, options: &SourceOptions) -> Result<Self, DataError> {
        let kind = match options.kind {
            _ if !input.exists() => {
                return Err(DataError::MissingInput { path: input.to_owned() });
            }
            Some(kind) => kind,
            None => detect(input)?,
        };
        options.check(kind, input)?;
        let split = options.split.unwrap_or(Split::Train);
        match kind {
            SourceKind::Folders => folders::list(input),
            SourceKind::Idx => idx::list(input, split),
            SourceKind::Cifar => cifar::list(input, split),
            SourceKind::ImagenetTrain => imagenet::list_train(input),
            SourceKind::ImagenetVal => {
                imagenet::list_val(input, &ground_truth::GroundTruth::read(options)?)
            }
        }
    }

    /// Names the content of the source without reading it: names, classes, and of each file length and
    /// time of its last change.
    pub(crate) fn fingerprint(&self) -> Result<String, DataError> {
        let mut hasher = blake3::Hasher::new();
        for class in &self.classes {
            hasher.update(class.as_bytes()).update(b"\n");
        }
        for (index, label) in self.labels.iter().enumerate() {
            hasher.update(&label.0.to_le_bytes()).update(self.images.name(index).as_bytes());
            hasher.update(b"\n");
        }
        for file in self.images.files() {
            let inspected = file.metadata().and_then(|data| Ok((data.len(), data.modified()?)));
            let (bytes, changed) = inspected.map_err(DataError::io("inspect", file))?;
            let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            hasher.update(&bytes.to_le_bytes()).update(&changed.to_le_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

impl SourceKind {
    fn sentence(self) -> &'static str {
        match self {
            Self::Folders => "a folder per class",
            Self::Idx => "IDX files",
            Self::Cifar => "CIFAR binaries",
            Self::ImagenetTrain => "ImageNet's training tar",
            Self::ImagenetVal => "ImageNet's validation tar",
        }
    }
}

impl SourceOptions {
    /// An option that the kind has no use for is a misunderstanding.
    fn check(&self, kind: SourceKind, input: &Path) -> Result<(), DataError> {
        let halves = matches!(kind, SourceKind::Idx | SourceKind::Cifar);
        let val = kind == SourceKind::ImagenetVal;
        let useless = [
            ("split", self.split.is_some() && !halves, "IDX or CIFAR files"),
            ("ground_truth", self.ground_truth.is_some() && !val, "ImageNet's validation tar"),
            ("synsets", self.synsets.is_some() && !val, "ImageNet's validation tar"),
        ];
        let Some((name, _, wanted)) = useless.into_iter().find(|(_, useless, _)| *useless) else {
            return Ok(());
        };
        let problem = format!(
            "was given, which is for {wanted}, but {} holds {}",
            input.display(),
            kind.sentence()
        );
        Err(DataError::setting(name, problem))
    }
}

/// Tells the kind from what lies in `input`, never from its name.
fn detect(input: &Path) -> Result<SourceKind, DataError> {
    if input.is_file() {
        return imagenet::detect(input);
    }
    Ok(match input {
        _ if idx::is_in(input) => SourceKind::Idx,
        _ if cifar::is_in(input) => SourceKind::Cifar,
        _ => SourceKind::Folders,
    })
}

fn is_image_name(name: &Path) -> bool {
    name.extension().is_some_and(|ending| {
        IMAGE_ENDINGS.iter().any(|image_ending| ending.eq_ignore_ascii_case(image_ending))
    })
}

fn check_image_bytes(bytes: u64) -> Result<(), String> {
    if bytes <= MAX_IMAGE_BYTES {
        return Ok(());
    }
    Err(format!("has {bytes} bytes, more than the {MAX_IMAGE_BYTES} that an image may have"))
}

fn bad(path: &Path, problem: impl Into<String>) -> DataError {
    DataError::BadSource { path: path.to_owned(), problem: problem.into() }
}

fn open(path: &Path) -> Result<File, DataError> {
    File::open(path).map_err(DataError::io("open", path))
}
