//! The file of a data set in the cache.
//!
//! ```text
//! FOLDER/.lock                     held while something is appended or begun
//!        FINGERPRINT.coefficients  of the manifest with this fingerprint
//!            magic [u8; 16]
//!            offset u64 · length u32 · check u32     per sample; all 0 if it is not there
//!            packed images, in the order in which they came
//! ```
//!
//! A slot is written after its image; its check is the CRC-32 of its sample's number, its offset and its image. So
//! whatever a crash, a full disk or a failing one leaves is told from an image, readers take no lock, and what
//! one process writes is there for the others at once. The fingerprint covers the checksums of all shards.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc32fast::Hasher;

use super::CacheConfig;
use crate::error::DataError;
use crate::manifest::Manifest;
use crate::sample::SampleId;

const ENDING: &str = "coefficients";
/// The last digit is the version.
const MAGIC: &[u8; 16] = b"lockstep coeff 1";
const SLOT: usize = 16;
/// Longest image that is kept; a damaged slot makes no one read more.
const LONGEST: usize = 64 << 20;

/// The file, open. Reads and writes are positional, so threads share it.
#[derive(Debug)]
pub(super) struct CacheFile {
    path: PathBuf,
    file: File,
    /// Where images begin.
    start: u64,
    folder: PathBuf,
    bound: u64,
}

/// What there is of an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Whole,
    Nothing,
    /// What is wrong, as the rest of a sentence.
    Damaged(String),
}

/// What became of an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Yes,
    /// The files of the folder have so many bytes and may not grow by as many as it takes.
    Full(u64),
}

/// Where an image lies.
#[derive(Debug, Clone, Copy)]
struct Slot {
    offset: u64,
    length: u32,
    check: u32,
}

impl CacheFile {
    pub(super) fn open(config: &CacheConfig, manifest: &Manifest) -> Result<Self, DataError> {
        let CacheConfig { folder, bound } = config;
        std::fs::create_dir_all(folder).map_err(DataError::io("create folder", folder))?;
        let path = folder.join(format!("{}.{ENDING}", manifest.fingerprint()));
        let _held = lock(folder)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(DataError::io("open", &path))?;
        let start = place(SampleId(manifest.samples()));
        let cache = Self { path, file, start, folder: folder.clone(), bound: *bound };
        let begin = || DataError::io("begin", &cache.path);
        let mut magic = [0; MAGIC.len()];
        let is_whole = cache.file.metadata().map_err(begin())?.len() >= start
            && cache.file.read_exact_at(&mut magic, 0).is_ok();
        if !(is_whole && magic == *MAGIC) {
            let started = cache.file.set_len(0).and_then(|()| cache.file.write_all_at(MAGIC, 0));
            started.and_then(|()| cache.file.set_len(start)).map_err(begin())?;
        }
        Ok(cache)
    }

    /// Replaces `packed` with an image.
    pub(super) fn read(&self, id: SampleId, packed: &mut Vec<u8>) -> Found {
        self.try_read(id, packed)
            .unwrap_or_else(|error| Found::Damaged(format!("is lost: {error}")))
    }

    fn try_read(&self, id: SampleId, packed: &mut Vec<u8>) -> std::io::Result<Found> {
        let slot = self.slot(id)?;
        if slot.is_empty() {
            return Ok(Found::Nothing);
        }
        let length = slot.length as usize;
        if length > LONGEST {
            return Ok(Found::Damaged(format!("claims to have {length} bytes")));
        }
        packed.resize(length, 0);
        self.file.read_exact_at(packed, slot.offset)?;
        if slot.check == slot.check_of(id, packed) {
            return Ok(Found::Whole);
        }
        Ok(Found::Damaged("has another checksum than it was written with".to_owned()))
    }

    /// The image is not there any more. If that fails, it will be found damaged again.
    pub(super) fn forget(&self, id: SampleId) {
        drop(self.file.write_all_at(&[0; SLOT], place(id)));
    }

    /// Appends an image, if there is room and it is not there.
    pub(super) fn append(&self, id: SampleId, packed: &[u8]) -> Result<Kept, DataError> {
        let write = || DataError::io("write", &self.path);
        let _held = lock(&self.folder)?;
        if packed.len() > LONGEST || !self.slot(id).map_err(write())?.is_empty() {
            return Ok(Kept::Yes);
        }
        let used = self.used()?;
        if used.saturating_add(packed.len() as u64) > self.bound {
            return Ok(Kept::Full(used));
        }
        let offset = self.file.metadata().map_err(write())?.len();
        let length = u32::try_from(packed.len()).expect("not longer than the longest");
        let mut slot = Slot { offset, length, check: 0 };
        slot.check = slot.check_of(id, packed);
        self.file
            .write_all_at(packed, offset)
            .and_then(|()| self.file.write_all_at(&slot.bytes(), place(id)))
            .map_err(write())?;
        Ok(Kept::Yes)
    }

    /// Bytes of all images; 0 if that cannot be found out.
    pub(super) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |data| data.len().saturating_sub(self.start))
    }

    /// Bytes of all data sets in the folder.
    fn used(&self) -> Result<u64, DataError> {
        let list = || DataError::io("list folder", &self.folder);
        let mut used = 0;
        for entry in std::fs::read_dir(&self.folder).map_err(list())? {
            let entry = entry.map_err(list())?;
            if Path::new(&entry.file_name()).extension().is_some_and(|ending| ending == ENDING) {
                // One that cannot be looked at has just been removed.
                used += entry.metadata().map_or(0, |data| data.len());
            }
        }
        Ok(used)
    }

    fn slot(&self, id: SampleId) -> std::io::Result<Slot> {
        let mut slot = [0; SLOT];
        self.file.read_exact_at(&mut slot, place(id))?;
        Ok(Slot::parse(slot))
    }
}

impl Slot {
    fn parse([o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, check @ ..]: [u8; SLOT]) -> Self {
        Self {
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            check: u32::from_le_bytes(check),
        }
    }

    fn bytes(self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..].copy_from_slice(&self.check.to_le_bytes());
        bytes
    }

    fn is_empty(self) -> bool {
        self.offset == 0
    }

    fn check_of(self, id: SampleId, packed: &[u8]) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&id.0.to_le_bytes());
        hasher.update(&self.offset.to_le_bytes());
        hasher.update(packed);
        hasher.finalize()
    }
}

/// Where the slot of a sample lies; that of the one past the end is where images begin.
fn place(id: SampleId) -> u64 {
    MAGIC.len() as u64 + SLOT as u64 * id.0
}

/// Waits for the lock of the folder; it is held as long as the result.
fn lock(folder: &Path) -> Result<File, DataError> {
    let path = folder.join(".lock");
    let open = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(DataError::io("lock", &path))
}
