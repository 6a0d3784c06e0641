//! A bounded folder of whole shards, shared by the processes of a host.
//!
//! ```text
//! FOLDER/.lock              held for the moments in which room is made, and a shard gets its name
//!        CHECKSUM.partial   being fetched, locked by its writer, of its final length from the start
//!        CHECKSUM.tar       whole: its bytes have had this checksum; mtime says when it was last wanted
//! ```
//!
//! Whole and partial files together never exceed the bound: room is made first, by removing the shards
//! that were wanted longest ago. A reader that has one of those open keeps its bytes. Files without a writer
//! are what a dead process left, and go. Names are checksums, so a shard packed anew is another file.

use std::fs::{DirEntry, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lockstep_data::ShardEntry;

use crate::fault::Fault;

/// The cache in one folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    bound: u64,
}

/// How an attempt to begin a shard ended.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is there already.
    Whole,
    /// This is where it goes.
    Mine(Partial),
    /// Another thread or process is fetching it, or all room is taken by shards that are being fetched.
    Later,
}

/// A shard that is being fetched. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Partial {
    /// Locked as long as it is open.
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    whole: PathBuf,
    lock: PathBuf,
    is_finished: bool,
}

impl Cache {
    pub(crate) fn open(folder: &Path, bound: u64) -> Result<Self, Fault> {
        std::fs::create_dir_all(folder).map_err(Fault::cache("create folder", folder))?;
        let cache = Self { folder: folder.to_owned(), bound };
        let _held = cache.lock()?;
        // Where the bound is lower than it was, what is too much goes now.
        let _is_enough = cache.make_room(0)?;
        Ok(cache)
    }

    pub(crate) fn bound(&self) -> u64 {
        self.bound
    }

    /// The whole shard, if it is there.
    pub(crate) fn find(&self, entry: &ShardEntry) -> Option<File> {
        let file = File::open(self.whole(entry)).ok()?;
        (file.metadata().ok()?.len() == entry.bytes).then_some(file)
    }

    /// Notes that a shard is wanted now.
    pub(crate) fn touch(&self, entry: &ShardEntry, now: SystemTime) {
        if let Some(file) = self.find(entry) {
            // In a folder of somebody else it may fail; then others decide what goes.
            drop(file.set_modified(now));
        }
    }

    /// Makes room for a shard and a place to write it to.
    pub(crate) fn begin(&self, entry: &ShardEntry) -> Result<Begun, Fault> {
        if entry.bytes > self.bound {
            let problem = format!(
                "has {} bytes, more than the cache may hold ({}); raise --data-cache-gib, or read \
                 single samples with --data-reads ranged",
                entry.bytes, self.bound
            );
            return Err(Fault::refused(problem));
        }
        let _held = self.lock()?;
        if self.find(entry).is_some() {
            return Ok(Begun::Whole);
        }
        let path = self.folder.join(format!("{}.partial", entry.checksum));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Fault::cache("create", &path))?;
        if !is_locked_now(&file, &path)? {
            return Ok(Begun::Later);
        }
        let partial = Partial {
            file,
            path: path.clone(),
            whole: self.whole(entry),
            lock: self.folder.join(".lock"),
            is_finished: false,
        };
        // It may be one that a dead process left.
        partial.file.set_len(0).map_err(Fault::cache("write", &path))?;
        if !self.make_room(entry.bytes)? {
            partial.discard()?;
            return Ok(Begun::Later);
        }
        partial.file.set_len(entry.bytes).map_err(Fault::cache("write", &path))?;
        Ok(Begun::Mine(partial))
    }

    /// Removes shards until so many bytes more fit; `false` if those being fetched leave no room.
    fn make_room(&self, bytes: u64) -> Result<bool, Fault> {
        let list = || Fault::cache("list folder", &self.folder);
        let (mut used, mut whole) = (bytes, Vec::new());
        for file in std::fs::read_dir(&self.folder).map_err(list())? {
            let file = file.map_err(list())?;
            // What cannot be looked at has just been removed.
            let Ok(data) = file.metadata() else { continue };
            match kind(&file) {
                Some(Kind::Partial) if is_dead(&file.path()) => remove(&file.path())?,
                // A wrong length is that of a disk that failed: such a file is not found, but counts.
                Some(Kind::Whole) => whole.push((data.modified().ok(), file.path(), data.len())),
                Some(Kind::Partial) => {}
                None => continue,
            }
            used += data.len();
        }
        whole.sort_unstable();
        let mut oldest = whole.into_iter();
        while used > self.bound {
            let Some((_, path, bytes)) = oldest.next() else { return Ok(false) };
            remove(&path)?;
            used -= bytes;
        }
        Ok(true)
    }

    fn whole(&self, entry: &ShardEntry) -> PathBuf {
        self.folder.join(format!("{}.tar", entry.checksum))
    }

    fn lock(&self) -> Result<File, Fault> {
        lock(&self.folder.join(".lock"))
    }
}

impl Partial {
    /// Gives the shard its name, once its bytes are on the disk.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        self.file.sync_all().map_err(Fault::cache("write", &self.path))?;
        let _held = lock(&self.lock)?;
        let renamed = std::fs::rename(&self.path, &self.whole);
        self.is_finished = renamed.is_ok();
        renamed.map_err(Fault::cache("create", &self.whole))
    }

    /// As dropping it, for who holds the folder's lock.
    fn discard(mut self) -> Result<(), Fault> {
        self.is_finished = true;
        remove(&self.path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_finished {
            // Under the lock, so that nobody opens a file that is about to have no name. A failure leaves a
            // file without a writer, which the next to make room removes.
            let _held = lock(&self.lock);
            drop(remove(&self.path));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Partial,
}

/// What a file of the folder is; `None`: none of ours.
fn kind(file: &DirEntry) -> Option<Kind> {
    let name = file.file_name();
    let (checksum, ending) = name.to_str()?.split_once('.')?;
    let is_ours = checksum.len() == 64 && checksum.bytes().all(|c| c.is_ascii_hexdigit());
    match ending {
        "tar" if is_ours => Some(Kind::Whole),
        "partial" if is_ours => Some(Kind::Partial),
        _ => None,
    }
}

/// Waits for the lock in this file; it is held as long as the result.
fn lock(path: &Path) -> Result<File, Fault> {
    let open = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(Fault::cache("lock", path))
}

/// Takes the lock of a file if nobody has it.
fn is_locked_now(file: &File, path: &Path) -> Result<bool, Fault> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Fault::cache("lock", path)(error)),
    }
}

/// Whether nobody writes a partial file any more.
fn is_dead(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

fn remove(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(Fault::cache("remove", path)),
    }
}
