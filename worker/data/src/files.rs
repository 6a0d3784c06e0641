//! Where the files of a data set lie: a folder here, anything else in another crate.

use std::fmt::Debug;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::DataError;
use crate::manifest::{FILE_NAME, ShardEntry};

/// The files of a data set. Calls may block; threads share it.
pub trait DataFiles: Debug + Send + Sync {
    /// Where a file lies, for messages.
    fn place(&self, name: &str) -> PathBuf;

    /// `manifest.json`.
    ///
    /// # Errors
    ///
    /// If there is none, with what to do about it, or if reading fails.
    fn manifest(&self) -> Result<Vec<u8>, DataError>;

    /// The small file `name`, whole. The caller compares its bytes with `checksum`; where they may change on
    /// their way, others are read again.
    ///
    /// # Errors
    ///
    /// If reading fails.
    fn read(&self, name: &str, checksum: &str) -> Result<Vec<u8>, DataError>;

    /// A shard of the manifest; need not be here yet.
    ///
    /// # Errors
    ///
    /// If it is known already that the shard is not as the manifest says.
    fn shard(&self, entry: &ShardEntry) -> Result<Box<dyn ShardBytes>, DataError>;

    /// Says which shards will be read next, the most urgent first.
    fn expect(&self, shards: &[&ShardEntry]);

    /// How many shards beyond those in use [`DataFiles::expect`] wants to hear of, for each lane.
    fn read_ahead(&self) -> usize;
}

/// The bytes of one shard. Reads are positional, so threads share it.
pub trait ShardBytes: Debug + Send + Sync {
    /// Fills `buffer` with the bytes from `offset` on, which must be those of `check`, where it is known and
    /// the shard was not checked as a whole.
    ///
    /// # Errors
    ///
    /// If there are fewer, or reading fails.
    fn read_exact_at(
        &self,
        buffer: &mut [u8],
        offset: u64,
        check: Option<ByteCheck>,
    ) -> Result<(), DataError>;

    /// Waits until reads need not wait for the whole shard to be fetched, but only so long; says whether
    /// that is so.
    ///
    /// # Errors
    ///
    /// If the shard cannot be had.
    fn wait(&self, at_most: Duration) -> Result<bool, DataError>;
}

/// Tells the bytes of a sample from others: the first 64 bits of their BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCheck(pub(crate) u64);

impl ByteCheck {
    /// The check of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut first = [0; 8];
        blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut first);
        Self(u64::from_le_bytes(first))
    }
}

/// A data set in a folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The data set in the folder at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, DataError> {
        let path = self.place(name);
        std::fs::read(&path).map_err(DataError::io("read", path))
    }
}

impl DataFiles for Folder {
    fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn manifest(&self) -> Result<Vec<u8>, DataError> {
        if !self.path.is_dir() {
            return Err(DataError::MissingFolder { path: self.path.clone() });
        }
        if !self.place(FILE_NAME).exists() {
            return Err(DataError::MissingManifest { path: self.path.clone() });
        }
        self.bytes(FILE_NAME)
    }

    fn read(&self, name: &str, _checksum: &str) -> Result<Vec<u8>, DataError> {
        self.bytes(name)
    }

    fn shard(&self, entry: &ShardEntry) -> Result<Box<dyn ShardBytes>, DataError> {
        let path = self.place(&entry.file);
        let file = File::open(&path).map_err(DataError::io("open", &path))?;
        let bytes = file.metadata().map_err(DataError::io("inspect", &path))?.len();
        if bytes != entry.bytes {
            let problem = format!("has {bytes} bytes, the manifest says {}", entry.bytes);
            return Err(DataError::BadShard { path, problem });
        }
        Ok(Box::new(LocalShard { path, file }))
    }

    fn expect(&self, _shards: &[&ShardEntry]) {}

    fn read_ahead(&self) -> usize {
        0
    }
}

/// An open file.
#[derive(Debug)]
struct LocalShard {
    path: PathBuf,
    file: File,
}

impl ShardBytes for LocalShard {
    fn read_exact_at(
        &self,
        buffer: &mut [u8],
        offset: u64,
        _check: Option<ByteCheck>,
    ) -> Result<(), DataError> {
        self.file.read_exact_at(buffer, offset).map_err(DataError::io("read", &self.path))
    }

    fn wait(&self, _at_most: Duration) -> Result<bool, DataError> {
        Ok(true)
    }
}
