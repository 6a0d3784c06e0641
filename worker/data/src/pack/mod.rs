//! Packing: images from a source into shards and a manifest, shuffled once.
//!
//! ```text
//!  list ──▶ shuffle by key ──▶ load, check, convert ──▶ OUTPUT/.packing/shard-*.tar
//!                               (threads) │ in order            │ all done
//!                                         ▼                     ▼
//!                                odd-images.jsonl       OUTPUT/, manifest last
//! ```
//!
//! Rules:
//!
//! 1. the same input and settings give the same bytes, whatever the threads and however often packing
//!    was killed and started again on the way;
//! 2. images are stored as they are, except for odd ones and where a short side is asked for: see
//!    [`OddRule`] and `prepare.rs`; every file that was left out or changed as odd is listed;
//! 3. an existing data set is not touched before the new one is complete on the
//!    disk, and there is a manifest only if all of its shards are there;
//! 4. a class without a usable image is an error, unless that is allowed: it is
//!    most often a wrong folder, and shifts no label silently;
//! 5. memory holds the list of the images and a few images per thread.
//!
//! Shuffling here, once, lets training read shards front to back and still see
//! a good mixture.

mod moments;
mod oddities;
mod partial;
mod prepare;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::prepare::{OddAction, OddFile, OddRule};

use self::partial::{Partial, Settings, clear};
use self::prepare::{Prepared, Preparer};
use crate::error::DataError;
use crate::keyed::{self, Key, Purpose};
use crate::manifest::{self, Manifest};
use crate::offsets;
use crate::parallel;
use crate::sample::{Label, SampleId};
use crate::shard_writer::ShardWriter;
use crate::sources::{Source, SourceOptions};

const REPORT_NAME: &str = "pack-report.json";
/// One line of JSON per odd file.
const ODD_NAME: &str = "odd-images.jsonl";
/// The shard that is being written.
const UNFINISHED: &str = "unfinished.tar";

/// What to pack, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackConfig {
    /// The source: a folder or a tar.
    pub input: PathBuf,
    /// How to read it, where its path does not say.
    pub source: SourceOptions,
    /// Folder of the data set; made if it is not there.
    pub output: PathBuf,
    /// Samples per shard; the last shard may hold fewer.
    pub shard_samples: u64,
    /// Seed of the shuffling.
    pub seed: u64,
    /// Shorten images whose short side is longer to this length, and store them as JPEG.
    pub short_side: Option<u32>,
    /// Threads that check and convert images; 0: one per core. The result does not depend on it.
    pub threads: usize,
    /// Accept classes without a usable image.
    pub allow_empty_classes: bool,
    /// Replace a data set that is already there.
    pub overwrite: bool,
}

impl PackConfig {
    /// Packs `input` into `output` with what suits most: 10,000 samples per shard, seed 0, all cores.
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            source: SourceOptions::default(),
            output: output.into(),
            shard_samples: 10_000,
            seed: 0,
            short_side: None,
            threads: 0,
            allow_empty_classes: false,
            overwrite: false,
        }
    }

    fn check(&self) -> Result<(), DataError> {
        if self.shard_samples == 0 {
            return Err(DataError::setting("shard_samples", "is 0; choose 1 or more"));
        }
        if self.short_side == Some(0) {
            return Err(DataError::setting("short_side", "is 0; choose 1 or more"));
        }
        if self.output.starts_with(&self.input) {
            let problem = "lies in the input, where it would count as a class; choose another";
            return Err(DataError::setting("output", problem));
        }
        Ok(())
    }
}

/// How far packing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackProgress {
    /// Images dealt with, those before an interruption too.
    pub done: usize,
    /// Images listed.
    pub total: usize,
    /// Images and other files left out so far.
    pub skipped: usize,
}

/// What was packed; also stored as `pack-report.json`, and the odd files as `odd-images.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackReport {
    /// Samples packed.
    pub samples: u64,
    /// Classes, empty ones included.
    pub classes: usize,
    /// Shards written.
    pub shards: usize,
    /// Bytes in all shards.
    pub bytes: u64,
    /// [`Manifest::fingerprint`] of the data set.
    pub fingerprint: String,
    /// Classes without a usable image.
    pub empty_classes: Vec<String>,
    /// Odd files that were left out.
    pub skipped: usize,
    /// Odd images that were encoded anew.
    pub converted: usize,
    /// Every odd file, by name.
    #[serde(skip)]
    pub odd: Vec<OddFile>,
}

/// Packs a data set, or goes on with it. `progress` is called at first and after every image.
///
/// # Errors
///
/// If there is nothing to pack, a class is empty, a data set is in the way, another packing was begun
/// here, or the disk fails. There is no new manifest then.
pub fn pack(
    config: &PackConfig,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<PackReport, DataError> {
    config.check()?;
    let replaces = config.overwrite || Partial::is_publishing(&config.output);
    if let Some(found) = occupant(&config.output)?.filter(|_| !replaces) {
        return Err(DataError::OutputExists { path: config.output.clone(), found });
    }
    let source = Source::find(&config.input, &config.source)?;
    // Known from the names alone: say so before hours of work.
    empty_classes(config, &source, &source.labels.iter().map(|label| label.0).collect())?;
    let partial = Partial::resume(&config.output, Settings::of(config, &source)?)?;
    let mut order: Vec<usize> = (0..source.labels.len()).collect();
    keyed::shuffle(&mut order, Key::new(config.seed).derive(Purpose::Pack, 0));

    let mut packer = Packer::new(config, partial);
    packer.skipped += source.ignored.len();
    let total = order.len();
    let mut tell = |packer: &Packer<'_>| {
        let (done, skipped) = (packer.partial.done, packer.skipped);
        progress(PackProgress { done, total, skipped });
    };
    tell(&packer);
    let threads = parallel::thread_count(config.threads);
    let mut workers: Vec<_> = (0..threads).map(|_| Preparer::new(config.short_side)).collect();
    let images = &*source.images;
    let work = |worker: &mut Preparer, index| (index, worker.prepare(images, index));
    let remaining = &order[packer.partial.done..];
    parallel::in_order(&mut workers, remaining, work, |(index, (prepared, odd))| {
        packer.add(source.labels[index], prepared, odd)?;
        tell(&packer);
        Ok(())
    })?;
    packer.finish(&source)
}

/// The state of one packing run.
struct Packer<'a> {
    config: &'a PackConfig,
    partial: Partial,
    shard: Option<ShardWriter>,
    skipped: usize,
}

impl<'a> Packer<'a> {
    fn new(config: &'a PackConfig, partial: Partial) -> Self {
        let skipped = skipped(&partial.odd);
        Self { config, partial, shard: None, skipped }
    }

    fn add(
        &mut self,
        label: Label,
        prepared: Option<Prepared>,
        odd: Vec<OddFile>,
    ) -> Result<(), DataError> {
        self.partial.done += 1;
        self.skipped += skipped(&odd);
        self.partial.odd.extend(odd);
        let Some(Prepared { bytes, moments }) = prepared else { return Ok(()) };
        let mut shard = match self.shard.take() {
            Some(shard) => shard,
            None => ShardWriter::create(Partial::folder(&self.config.output).join(UNFINISHED))?,
        };
        shard.append(SampleId(self.partial.samples() + shard.samples()), &bytes, label)?;
        self.partial.labels.insert(label.0);
        self.partial.moments.add(&moments);
        self.shard = Some(shard);
        let full = self.shard.as_ref().map(ShardWriter::samples) == Some(self.config.shard_samples);
        if full { self.end_shard() } else { Ok(()) }
    }

    /// Puts a whole shard where it counts, and notes that it is there.
    fn end_shard(&mut self) -> Result<(), DataError> {
        if let Some(shard) = self.shard.take() {
            let name = format!("shard-{:06}.tar", self.partial.shards.len());
            let place = Partial::folder(&self.config.output).join(name);
            self.partial.shards.push(shard.finish(&place)?);
        }
        self.partial.store(&self.config.output)
    }

    fn finish(mut self, source: &Source) -> Result<PackReport, DataError> {
        self.end_shard()?;
        let Self { config, mut partial, .. } = self;
        if partial.samples() == 0 {
            return Err(DataError::NoImages { path: config.input.clone() });
        }
        let empty_classes = empty_classes(config, source, &partial.labels)?;
        let moments = partial.moments.mean_and_std();
        let manifest = Manifest::new(source.classes.clone(), moments, partial.shards.clone());
        let misplaced = source.ignored.iter().map(|(name, reason)| OddFile {
            name: name.clone(),
            rule: OddRule::Misplaced,
            done: OddAction::Skipped,
            detail: (*reason).to_owned(),
        });
        let mut odd: Vec<_> = partial.odd.iter().cloned().chain(misplaced).collect();
        odd.sort_unstable();
        let report = PackReport {
            samples: manifest.samples(),
            classes: manifest.classes().len(),
            shards: manifest.shards().len(),
            bytes: manifest.shards().iter().map(|shard| shard.bytes).sum(),
            fingerprint: manifest.fingerprint(),
            empty_classes,
            skipped: skipped(&odd),
            converted: odd.iter().filter(|odd| odd.done == OddAction::Converted).count(),
            odd,
        };
        publish(&config.output, &mut partial, &manifest, &report)?;
        Ok(report)
    }
}

fn skipped(odd: &[OddFile]) -> usize {
    odd.iter().filter(|odd| odd.done == OddAction::Skipped).count()
}

/// Moves complete shards to their place; the manifest comes last.
///
/// Can be done again after a death at any line: what is noted first says which shards are the new ones.
fn publish(
    output: &Path,
    partial: &mut Partial,
    manifest: &Manifest,
    report: &PackReport,
) -> Result<(), DataError> {
    if !partial.publishing {
        // The old manifest goes first: never a manifest with shards of another set.
        while let Some(name) = occupant(output)? {
            let path = output.join(name);
            std::fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
        }
        partial.publishing = true;
        partial.store(output)?;
    }
    let staging = Partial::folder(output);
    for name in manifest.shards().iter().flat_map(|s| [s.file.clone(), offsets::name(&s.file)]) {
        let (from, to) = (staging.join(&name), output.join(&name));
        if from.exists() {
            std::fs::rename(from, &to).map_err(DataError::io("create", to))?;
        }
    }
    let text = serde_json::to_vec_pretty(report).expect("a report is plain data");
    manifest::write_atomically(output, REPORT_NAME, &text)?;
    let line = |odd| serde_json::to_string(odd).expect("a report is plain data") + "\n";
    let lines: String = report.odd.iter().map(line).collect();
    manifest::write_atomically(output, ODD_NAME, lines.as_bytes())?;
    manifest.store(output)?;
    clear(&staging)
}

/// A file of a data set in `output`: the manifest if there is one, else a shard.
fn occupant(output: &Path) -> Result<Option<String>, DataError> {
    if output.join(manifest::FILE_NAME).exists() {
        return Ok(Some(manifest::FILE_NAME.to_owned()));
    }
    if !output.exists() {
        return Ok(None);
    }
    for entry in std::fs::read_dir(output).map_err(DataError::io("list folder", output))? {
        let entry = entry.map_err(DataError::io("list folder", output))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("shard-").and_then(|rest| rest.split_once('.'));
        let number = number.filter(|(_, ending)| ["tar", "offsets"].contains(ending));
        if number
            .map(|(digits, _)| digits)
            .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Names of classes that are not among `labels`; an error unless they are allowed.
fn empty_classes(
    config: &PackConfig,
    source: &Source,
    labels: &BTreeSet<u32>,
) -> Result<Vec<String>, DataError> {
    let numbered = (0..).zip(&source.classes);
    let empty: Vec<_> = numbered.filter(|(label, _)| !labels.contains(label)).collect();
    if !empty.is_empty() && !config.allow_empty_classes {
        let folders = empty.iter().map(|(_, class)| config.input.join(class)).collect();
        return Err(DataError::EmptyClasses { folders });
    }
    Ok(empty.into_iter().map(|(_, class)| class.clone()).collect())
}
