//! A bounded cache of entropy-decoded coefficients on the local disk, for the second and later data epochs.
//!
//! Huffman's codes are more than a third of what a training image costs. The first time one is decoded, its
//! coefficients are packed and handed to a thread that writes them ([`writer`]); from then on they are read in
//! place of the JPEG ([`file`](mod@file)), and give the same samples.
//!
//! Rules:
//!
//! 1. views never depend on the cache: an image that is not there is decoded from its JPEG, and one whose file
//!    is damaged anywhere is never put there;
//! 2. the loader never waits for it: what the writer cannot take at once is left for the next data epoch;
//! 3. when the bound is reached, filling stops. Samples come once per data epoch, so whatever went to make
//!    room would be missed before what it made room for is used;
//! 4. damage is found by a checksum, forgotten, told as a [`CacheEvent`], and decoded from the JPEG again.

mod file;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::error::DataError;
use crate::manifest::Manifest;
use crate::sample::SampleId;
use file::{CacheFile, Found};
use writer::Writer;

/// Where coefficients are kept, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// A folder on a local disk. Processes of one machine may share it.
    pub folder: PathBuf,
    /// Bytes that its files may have together.
    pub bound: u64,
}

/// Something about the cache that its user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEvent {
    /// An image was there, but not as it was written; its JPEG was used.
    Damaged {
        /// The image.
        id: SampleId,
        /// What is wrong with it, as the rest of a sentence.
        problem: String,
    },
    /// No more is written, as the bound is reached.
    Full {
        /// Bytes that the files of the folder have.
        bytes: u64,
    },
    /// No more is written, as that failed.
    Failed {
        /// Why, as a sentence.
        problem: String,
    },
}

/// The cache of one data set.
#[derive(Debug)]
pub(crate) struct CoefficientCache {
    file: Arc<CacheFile>,
    events: Arc<Events>,
    writer: Writer,
}

/// What happened since it was last asked for.
#[derive(Debug, Default)]
struct Events(Mutex<Vec<CacheEvent>>);

impl CoefficientCache {
    /// Opens the cache of a data set, or begins one.
    pub(crate) fn open(config: &CacheConfig, manifest: &Manifest) -> Result<Self, DataError> {
        if config.bound == 0 {
            return Err(DataError::setting("bound", "is 0; give the cache some bytes, or none"));
        }
        let file = Arc::new(CacheFile::open(config, manifest)?);
        let events = Arc::new(Events::default());
        let writer = Writer::start(Arc::clone(&file), Arc::clone(&events))?;
        Ok(Self { file, events, writer })
    }

    /// Replaces `packed` with the coefficients of an image, if they are there.
    pub(crate) fn read(&self, id: SampleId, packed: &mut Vec<u8>) -> bool {
        match self.file.read(id, packed) {
            Found::Whole => true,
            Found::Nothing => false,
            Found::Damaged(problem) => {
                self.forget(id, problem);
                false
            }
        }
    }

    /// Drops an image that cannot be used.
    pub(crate) fn forget(&self, id: SampleId, problem: String) {
        self.file.forget(id);
        self.events.push(CacheEvent::Damaged { id, problem });
    }

    /// An empty buffer for an image, if it can be taken.
    pub(crate) fn wants_one(&self) -> Option<Vec<u8>> {
        self.writer.wants_one()
    }

    /// Takes a packed image.
    pub(crate) fn put(&self, id: SampleId, packed: Vec<u8>) {
        self.writer.put(id, packed);
    }

    /// Bytes of all images.
    pub(crate) fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// What happened since the last call.
    pub(crate) fn take_events(&self) -> Vec<CacheEvent> {
        std::mem::take(&mut self.events.0.lock().expect("no holder of this lock can panic"))
    }
}

impl Events {
    fn push(&self, event: CacheEvent) {
        self.0.lock().expect("no holder of this lock can panic").push(event);
    }
}

impl fmt::Display for CacheEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { id, problem } => {
                write!(f, "sample {} in the coefficient cache {problem}; decoded its JPEG", id.0)
            }
            Self::Full { bytes } => write!(
                f,
                "the coefficient cache is full at {bytes} bytes and stays as it is; \
                 remove files of other data sets from it, or allow it more"
            ),
            Self::Failed { problem } => {
                write!(f, "the coefficient cache takes no more: {problem}")
            }
        }
    }
}
