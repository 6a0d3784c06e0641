//! Verifying a data set: every byte by checksum, every image by decoding it.

use lockstep_jpeg::PlanarImage;

use crate::decode::Decoder;
use crate::error::DataError;
use crate::files::{ByteCheck, DataFiles};
use crate::manifest::{Manifest, ShardEntry};
use crate::shard::{Member, Shard};

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

/// Verifies a data set. `progress` is called after every shard.
///
/// # Errors
///
/// If there is no manifest to verify against. Faults of shards are not errors
/// but the content of the report: verification goes on after them.
pub fn verify_shards(
    files: &dyn DataFiles,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, DataError> {
    let manifest = Manifest::of(files)?;
    let (entries, classes) = (manifest.shards(), manifest.classes().len());
    let mut faults = Vec::new();
    let mut first = 0;
    for (index, entry) in entries.iter().enumerate() {
        let ahead = entries.len().min(index + 1 + files.read_ahead());
        files.expect(&entries[index..ahead].iter().collect::<Vec<_>>());
        let problems = shard_problems(files, entry, first, classes);
        first += entry.samples;
        if !problems.is_empty() {
            faults.push(ShardFault { file: entry.file.clone(), problems });
        }
        progress(VerifyProgress { done: index + 1, total: entries.len(), faulty: faults.len() });
    }
    Ok(VerifyReport { shards: entries.len(), samples: manifest.samples(), faults })
}

fn shard_problems(
    files: &dyn DataFiles,
    entry: &ShardEntry,
    first: u64,
    classes: usize,
) -> Vec<String> {
    let mut problems = Vec::new();
    let shard = match Shard::open(files, entry) {
        Err(error) => return vec![problem(error)],
        Ok(shard) => shard,
    };
    match shard.checksum(entry) {
        Err(error) => return vec![problem(error)],
        Ok(found) if found != entry.checksum => problems.push(format!(
            "checksum is {found}, the manifest says {}: bytes have changed",
            entry.checksum
        )),
        Ok(_) => {}
    }
    match walk(&shard, entry, classes) {
        Err(error) => problems.push(problem(error)),
        Ok(found) => {
            // Offsets can be judged by bytes that have not changed only.
            if entry.offsets.is_some() && problems.is_empty() {
                problems.extend(offset_problem(&shard, &found, (files, entry, classes)));
            }
            problems.extend(sample_problems(&shard, &found, first));
        }
    }
    problems
}

/// What stands behind the name of the shard.
fn problem(error: DataError) -> String {
    if let DataError::BadShard { problem, .. } = error {
        return problem;
    }
    if let DataError::Io { source, .. } = error {
        return format!("cannot be read: {source}");
    }
    error.to_string()
}

/// The samples that the tar itself holds.
fn walk(shard: &Shard, entry: &ShardEntry, classes: usize) -> Result<Vec<Member>, DataError> {
    let bad = |problem| DataError::BadShard { path: shard.path().to_owned(), problem };
    let found = shard.walk(entry, classes)?.map_err(bad)?;
    if found.len() as u64 != entry.samples {
        let expected = entry.samples;
        return Err(bad(format!("holds {} samples, the manifest says {expected}", found.len())));
    }
    Ok(found)
}

fn sample_problems(shard: &Shard, members: &[Member], first: u64) -> Vec<String> {
    let (mut bytes, mut image) = (Vec::new(), PlanarImage::default());
    let mut decoder = Decoder::default();
    let mut check = |member: &Member| {
        shard.read(*member, &mut bytes).map_err(|error| error.to_string())?;
        decoder.open(&bytes)?.decode_all(&mut image)
    };
    (first..)
        .zip(members)
        .filter_map(|(id, member)| check(member).err().map(|problem| (id, problem)))
        .map(|(id, problem)| format!("sample {id} {problem}"))
        .collect()
}

/// Whether the offsets say what the tar does.
fn offset_problem(
    shard: &Shard,
    found: &[Member],
    (files, entry, classes): (&dyn DataFiles, &ShardEntry, usize),
) -> Option<String> {
    let said = match shard.members(files, entry, classes) {
        Err(error) => return Some(format!("has no offsets: {error}")),
        Ok(said) => said,
    };
    let mut bytes = Vec::new();
    let mut is_other = |(said, found): (&Member, &Member)| {
        let place = Member { check: None, ..*said };
        let read = shard.read(place, &mut bytes);
        place != *found || read.is_err() || Some(ByteCheck::of(&bytes)) != said.check
    };
    let other = said.iter().zip(found).filter(|pair| is_other(*pair)).count();
    (other > 0).then(|| format!("has offsets of another shard: {other} samples differ"))
}
