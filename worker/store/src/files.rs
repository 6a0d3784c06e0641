//! A data set in a store, as [`lockstep_data`] reads it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_data::{ByteCheck, DataError, DataFiles, ShardBytes, ShardEntry};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::cache::Cache;
use crate::downloads::Downloads;
use crate::fault::Fault;
use crate::fetch::{Patience, Remote};
use crate::place::{self, Place};

const MANIFEST: &str = "manifest.json";
/// How long a read waits at a time for a shard that was removed between its arrival and the read.
const WAIT: Duration = Duration::from_mins(1);
/// How often that may happen to one read.
const REMOVALS: u32 = 10;
/// How often something with other bytes than expected is fetched.
const WRONG_BYTES: u32 = 3;

/// How shards are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Fetched whole into the cache, a few ahead.
    Whole,
    /// Sample by sample, without a cache; needs the offsets of every shard.
    Ranged,
}

/// How a data set in a store is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Whole shards, or samples.
    pub reads: Reads,
    /// Folder of the cache; processes of a host may share it.
    pub cache: PathBuf,
    /// Bytes that the cache may hold.
    pub cache_bytes: u64,
    /// Shards that are fetched ahead for each lane.
    pub read_ahead: usize,
}

/// A data set in a store.
#[derive(Debug)]
pub struct StoreFiles {
    remote: Arc<Remote>,
    /// In a whole-shard reading only.
    downloads: Option<Arc<Downloads>>,
    read_ahead: usize,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
}

impl StoreFiles {
    /// Prepares to read the data set at `url`, with the credentials among `variables` (the environment's).
    /// Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// If the URL names no place that can hold a data set, the credentials cannot be used, or the cache
    /// cannot be made.
    pub fn new(
        url: &str,
        config: &StoreConfig,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, DataError> {
        Self::with_patience(url, config, variables, Patience::default())
    }

    pub(crate) fn with_patience(
        url: &str,
        config: &StoreConfig,
        variables: impl IntoIterator<Item = (String, String)>,
        patience: Patience,
    ) -> Result<Self, DataError> {
        let shown = || PathBuf::from(place::shown(url));
        let place =
            Place::new(url, variables.into_iter().collect()).map_err(|f| f.about(shown()))?;
        let remote = Arc::new(Remote { place, patience });
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|error| Fault::passing(format!("cannot be read: {error}")).about(shown()))?;
        let downloads = match config.reads {
            Reads::Ranged => None,
            Reads::Whole => {
                let cache = Cache::open(&config.cache, config.cache_bytes);
                let cache = cache.map_err(|fault| fault.about(shown()))?;
                let handle = runtime.handle().clone();
                Some(Arc::new(Downloads::new(Arc::clone(&remote), cache, handle)))
            }
        };
        Ok(Self { remote, downloads, read_ahead: config.read_ahead, runtime: Some(runtime) })
    }

    /// A small file as it comes.
    fn fetch(&self, name: &str) -> Result<Vec<u8>, DataError> {
        let read = self.handle().block_on(self.remote.read(name));
        read.map_err(|fault| fault.about(self.place(name)))
    }

    fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("taken when dropped only").handle()
    }
}

impl Drop for StoreFiles {
    fn drop(&mut self) {
        // Without waiting, which a caller inside of another runtime could not do.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl DataFiles for StoreFiles {
    fn place(&self, name: &str) -> PathBuf {
        self.remote.url(name)
    }

    fn manifest(&self) -> Result<Vec<u8>, DataError> {
        self.fetch(MANIFEST)
    }

    fn read(&self, name: &str, checksum: &str) -> Result<Vec<u8>, DataError> {
        for _ in 1..WRONG_BYTES {
            let bytes = self.fetch(name)?;
            if blake3::hash(&bytes).to_hex().as_str() == checksum {
                return Ok(bytes);
            }
            tracing::warn!(file = name, "fetched bytes have another checksum");
        }
        self.fetch(name)
    }

    fn shard(&self, entry: &ShardEntry) -> Result<Box<dyn ShardBytes>, DataError> {
        let entry = entry.clone();
        if let Some(downloads) = &self.downloads {
            let (downloads, place) = (Arc::clone(downloads), self.place(&entry.file));
            return Ok(Box::new(CachedShard { downloads, entry, place }));
        }
        if entry.offsets.is_none() {
            let problem = "has no offsets file, so single samples of it cannot be found; read whole shards \
                           (--data-reads whole), or make offsets with `worker index --overwrite`";
            return Err(Fault::refused(problem).about(self.place(&entry.file)));
        }
        let (remote, runtime) = (Arc::clone(&self.remote), self.handle().clone());
        Ok(Box::new(RemoteShard { remote, runtime, entry }))
    }

    fn expect(&self, shards: &[&ShardEntry]) {
        if let Some(downloads) = &self.downloads {
            downloads.expect(shards);
        }
    }

    fn read_ahead(&self) -> usize {
        if self.downloads.is_some() { self.read_ahead } else { 0 }
    }
}

/// A shard that is read from the cache.
#[derive(Debug)]
struct CachedShard {
    downloads: Arc<Downloads>,
    entry: ShardEntry,
    place: PathBuf,
}

impl ShardBytes for CachedShard {
    fn read_exact_at(
        &self,
        buffer: &mut [u8],
        offset: u64,
        _check: Option<ByteCheck>,
    ) -> Result<(), DataError> {
        use std::os::unix::fs::FileExt;
        for _ in 0..REMOVALS {
            if let Some(file) = self.downloads.cache().find(&self.entry) {
                let read = file.read_exact_at(buffer, offset);
                return read.map_err(|source| DataError::Io {
                    action: "read the cached copy of",
                    path: self.place.clone(),
                    source,
                });
            }
            while !self.wait(WAIT)? {}
        }
        let problem = "was removed from the cache again and again before it was read; raise \
                       --data-cache-gib: it must hold what all processes read at a time";
        Err(Fault::passing(problem).about(self.place.clone()))
    }

    fn wait(&self, at_most: Duration) -> Result<bool, DataError> {
        self.downloads.wait(&self.entry, at_most).map_err(|fault| fault.about(self.place.clone()))
    }
}

/// A shard that is read where it lies.
#[derive(Debug)]
struct RemoteShard {
    remote: Arc<Remote>,
    runtime: Handle,
    entry: ShardEntry,
}

impl ShardBytes for RemoteShard {
    fn read_exact_at(
        &self,
        buffer: &mut [u8],
        offset: u64,
        check: Option<ByteCheck>,
    ) -> Result<(), DataError> {
        let ShardEntry { file, bytes, .. } = &self.entry;
        let failed = |fault: Fault| fault.about(self.remote.url(file));
        for _ in 0..WRONG_BYTES {
            let read = self.remote.read_exact_at(file, buffer, (offset, *bytes));
            self.runtime.block_on(read).map_err(failed)?;
            if check.is_none_or(|check| check == ByteCheck::of(buffer)) {
                return Ok(());
            }
            tracing::warn!(shard = file, offset, "fetched bytes have another check");
        }
        let problem = format!(
            "came {WRONG_BYTES} times with other bytes at {offset} than its offsets say: what lies in the \
             store has changed"
        );
        Err(failed(Fault::content(problem)))
    }

    fn wait(&self, _at_most: Duration) -> Result<bool, DataError> {
        Ok(true)
    }
}
