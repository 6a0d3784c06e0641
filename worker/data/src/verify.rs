//! Verifying a data set: every byte by checksum, every image by decoding it.

use std::path::Path;

use lockstep_jpeg::PlanarImage;

use crate::decode::Decoder;
use crate::error::DataError;
use crate::manifest::{Manifest, ShardEntry};
use crate::shard::{Shard, checksum};

/// How far verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Shards verified.
    pub done: usize,
    /// Shards in the manifest.
    pub total: usize,
    /// Shards with a fault so far.
    pub faulty: usize,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Shards in the manifest.
    pub shards: usize,
    /// Samples in the manifest.
    pub samples: u64,
    /// The shards that are not what the manifest says.
    pub faults: Vec<ShardFault>,
}

/// What is wrong with one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardFault {
    /// File name of the shard.
    pub file: String,
    /// One sentence per fault; those about a sample name it.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Is everything as the manifest says?
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Verifies the data set in `dir`. `progress` is called after every shard.
///
/// # Errors
///
/// If there is no manifest to verify against. Faults of shards are not errors
/// but the content of the report: verification goes on after them.
pub fn verify_shards(
    dir: &Path,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, DataError> {
    let manifest = Manifest::load(dir)?;
    let total = manifest.shards().len();
    let mut faults = Vec::new();
    let mut first = 0;
    for (index, entry) in manifest.shards().iter().enumerate() {
        let problems = shard_problems(dir, entry, first, manifest.classes().len());
        first += entry.samples;
        if !problems.is_empty() {
            faults.push(ShardFault { file: entry.file.clone(), problems });
        }
        progress(VerifyProgress { done: index + 1, total, faulty: faults.len() });
    }
    Ok(VerifyReport { shards: total, samples: manifest.samples(), faults })
}

fn shard_problems(dir: &Path, entry: &ShardEntry, first: u64, classes: usize) -> Vec<String> {
    let mut problems = Vec::new();
    match checksum(&dir.join(&entry.file)) {
        Err(error) => return vec![format!("cannot be read: {error}")],
        Ok(found) if found != entry.checksum => problems.push(format!(
            "checksum is {found}, the manifest says {}: bytes have changed",
            entry.checksum
        )),
        Ok(_) => {}
    }
    match Shard::open(dir, entry, classes) {
        Err(DataError::BadShard { problem, .. }) => problems.push(problem),
        Err(error) => problems.push(error.to_string()),
        Ok(shard) => problems.extend(sample_problems(&shard, entry, first)),
    }
    problems
}

fn sample_problems(shard: &Shard, entry: &ShardEntry, first: u64) -> Vec<String> {
    let (mut bytes, mut image) = (Vec::new(), PlanarImage::default());
    let mut decoder = Decoder::default();
    let mut check = |index: u64| {
        shard.read(index, &mut bytes).map_err(|error| error.to_string())?;
        decoder.open(&bytes)?.decode_all(&mut image)
    };
    (0..entry.samples)
        .filter_map(|index| check(index).err().map(|problem| (first + index, problem)))
        .map(|(id, problem)| format!("sample {id} {problem}"))
        .collect()
}
