//! What can go wrong with data, each case as a sentence that says what to do.

use std::path::{Path, PathBuf};

/// What can be packed.
const EXPECTED_INPUT: &str = "INPUT/CLASS/image.jpg (or .png), IDX files such as \
     train-images-idx3-ubyte.gz, CIFAR's .bin files, or one of ImageNet's tars";

/// Everything this crate can fail with.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `create`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// The data folder is not there.
    #[error(
        "data folder {path} does not exist; \
         make it with `worker pack --input IMAGES --output {path}`, or correct the path",
        path = path.display()
    )]
    MissingFolder {
        /// The folder that was asked for.
        path: PathBuf,
    },

    /// The folder is no data set.
    #[error(
        "{path} holds no manifest.json, so it is not a packed data set; \
         make one with `worker pack --input IMAGES --output {path}`",
        path = path.display()
    )]
    MissingManifest {
        /// The folder that was asked for.
        path: PathBuf,
    },

    /// The manifest was written by another version.
    #[error(
        "{} has format version {found}, this program reads version {supported}; \
         pack the images again with `worker pack`, or use the version that packed them",
        path.display()
    )]
    UnsupportedVersion {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },

    /// The manifest contradicts itself or is not what `worker pack` writes.
    #[error("{} {problem}; pack the images again with `worker pack`", path.display())]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, as the rest of a sentence.
        problem: String,
    },

    /// A shard is not what the manifest says.
    #[error(
        "shard {} {problem}; run `worker verify-shards`, then copy the shard again or pack anew",
        path.display()
    )]
    BadShard {
        /// The shard.
        path: PathBuf,
        /// What is wrong, as the rest of a sentence.
        problem: String,
    },

    /// A store of files does not answer, or not with what was asked for; another try later may.
    #[error("{} {problem}", path.display())]
    Unavailable {
        /// The file.
        path: PathBuf,
        /// What was tried, and what to do, as the rest of a sentence.
        problem: String,
    },

    /// A store of files refuses, and will again.
    #[error("{} {problem}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, and what to do, as the rest of a sentence.
        problem: String,
    },

    /// One image cannot be used. Training replaces it, see [`Verdict::ReplaceSample`].
    #[error("sample {id} in shard {} {problem}; run `worker verify-shards`", path.display())]
    BadSample {
        /// Number of the sample in manifest order.
        id: u64,
        /// The shard that holds it.
        path: PathBuf,
        /// What is wrong, as the rest of a sentence.
        problem: String,
    },

    /// No good image was found in place of a bad one.
    #[error(
        "sample {id} cannot be used and neither can the {tried} after it in shard {}; \
         run `worker verify-shards`",
        path.display()
    )]
    NoReplacement {
        /// Number of the first bad sample in manifest order.
        id: u64,
        /// How many others were tried.
        tried: u64,
        /// The shard that holds them.
        path: PathBuf,
    },

    /// A sample number past the end of the data set.
    #[error(
        "sample {id} was asked for, but the data set has {samples}; \
         the run was planned for another data set"
    )]
    NoSuchSample {
        /// The number.
        id: u64,
        /// Samples in the data set.
        samples: u64,
    },

    /// A setting that cannot work.
    #[error("`{name}` {problem}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong and what is allowed, as the rest of a sentence.
        problem: String,
    },

    /// What is to be packed is not there.
    #[error("input {} does not exist; expected {EXPECTED_INPUT}", path.display())]
    MissingInput {
        /// The path that was given.
        path: PathBuf,
    },

    /// There is nothing to pack.
    #[error("no images in {}; expected {EXPECTED_INPUT}", path.display())]
    NoImages {
        /// The path that was given.
        path: PathBuf,
    },

    /// Some classes have no usable image.
    #[error(
        "no usable image in class folder {}; \
         remove the folder or add images, or allow it with `--allow-empty-classes`",
        quoted(folders)
    )]
    EmptyClasses {
        /// The folders.
        folders: Vec<PathBuf>,
    },

    /// Packing would replace something.
    #[error(
        "{} already holds a data set ({found}); \
         choose another folder, or replace it with `--overwrite`",
        path.display()
    )]
    OutputExists {
        /// The output folder.
        path: PathBuf,
        /// A file that is in the way.
        found: String,
    },

    /// A packing that was begun here is another one, or damaged.
    #[error(
        "{path} holds a packing that was begun otherwise: {problem}; \
         give the same settings to go on with it, or remove {path} to begin anew",
        path = path.display()
    )]
    OtherPacking {
        /// The folder of the partial packing.
        path: PathBuf,
        /// What differs, as a list.
        problem: String,
    },

    /// What is to be packed is damaged, incomplete or something else.
    #[error("source {} {problem}", path.display())]
    BadSource {
        /// The file or folder.
        path: PathBuf,
        /// What was found and what was expected, as the rest of a sentence.
        problem: String,
    },

    /// The loader's thread is gone, after an error that was reported before.
    #[error("the loader has stopped after an earlier error; start a new one")]
    LoaderStopped,
}

/// What a caller does with a [`DataError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Only this image is damaged: use another, count it and name it.
    ReplaceSample,
    /// Nothing good can come of going on.
    Stop,
}

impl DataError {
    /// Callers branch on this, never on the message.
    pub fn verdict(&self) -> Verdict {
        if matches!(self, Self::BadSample { .. }) { Verdict::ReplaceSample } else { Verdict::Stop }
    }

    /// For `map_err`: names what was tried on which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn setting(name: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { name, problem: problem.into() }
    }
}

fn quoted(folders: &[PathBuf]) -> String {
    folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
}
