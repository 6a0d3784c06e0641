//! Packing: images from a source into shards and a manifest, shuffled once.
//!
//! ```text
//!  list ──▶ shuffle by key ──▶ load, decode to validate ──▶ OUTPUT/.packing/shard-*.tar
//!                                     │ bad: skip, name          │ all done
//!                                     ▼                          ▼
//!                              pack-report.json          OUTPUT/, manifest last
//! ```
//!
//! Rules:
//!
//! 1. the same input and seed give the same bytes;
//! 2. JPEG and PNG are stored as they are, never encoded anew;
//! 3. an existing data set is not touched before the new one is complete on the
//!    disk, and there is a manifest only if all of its shards are there;
//! 4. a class without a usable image is an error, unless that is allowed: it is
//!    most often a wrong folder, and shifts no label silently.
//!
//! Shuffling here, once, lets training read shards front to back and still see
//! a good mixture.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::decode::{Decoder, RgbImage};
use crate::error::DataError;
use crate::keyed::{self, Key, Purpose};
use crate::manifest::{self, Manifest, ShardEntry};
use crate::sample::SampleId;
use crate::shard_writer::ShardWriter;
use crate::sources::{Source, Split};

const REPORT_NAME: &str = "pack-report.json";
/// Shards lie here, inside the output, until all are complete.
const STAGING: &str = ".packing";

/// What to pack, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackConfig {
    /// Folder of class folders, or of IDX files.
    pub input: PathBuf,
    /// Folder of the data set; made if it is not there.
    pub output: PathBuf,
    /// Samples per shard; the last shard may hold fewer.
    pub shard_samples: u64,
    /// Seed of the shuffling.
    pub seed: u64,
    /// Which half of IDX files; train if not given.
    pub split: Option<Split>,
    /// Accept classes without a usable image.
    pub allow_empty_classes: bool,
    /// Replace a data set that is already there.
    pub overwrite: bool,
}

impl PackConfig {
    fn check(&self) -> Result<(), DataError> {
        if self.shard_samples == 0 {
            return Err(DataError::setting("shard_samples", "is 0; choose 1 or more"));
        }
        if !self.input.is_dir() {
            return Err(DataError::MissingInput { path: self.input.clone() });
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
    /// Images dealt with.
    pub done: usize,
    /// Images listed.
    pub total: usize,
    /// Images and other files left out so far.
    pub skipped: usize,
}

/// What was packed and what was left out; also stored as `pack-report.json`.
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
    /// Every file that was left out.
    pub skipped: Vec<Skipped>,
}

/// A file that was left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Skipped {
    /// Where it lies.
    pub path: String,
    /// Why it was left out, as the rest of a sentence.
    pub reason: String,
}

/// Packs a data set. `progress` is called after every image.
///
/// # Errors
///
/// If there is nothing to pack, a class is empty, a data set is in the way, or
/// the disk fails. There is no new manifest then.
pub fn pack(
    config: &PackConfig,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<PackReport, DataError> {
    config.check()?;
    if let Some(found) = occupant(&config.output)?.filter(|_| !config.overwrite) {
        return Err(DataError::OutputExists { path: config.output.clone(), found });
    }
    let mut source = Source::find(&config.input, config.split)?;
    let mut items = std::mem::take(&mut source.items);
    keyed::shuffle(&mut items, Key::new(config.seed).derive(Purpose::Pack, 0));
    // Known from the names alone: say so before hours of work.
    let listed = items.iter().map(|item| item.label.0);
    empty_classes(config, &source, listed)?;

    let mut packer = Packer::new(config, &source)?;
    for (done, item) in items.iter().enumerate() {
        packer.add(item)?;
        let skipped = packer.skipped.len();
        progress(PackProgress { done: done + 1, total: items.len(), skipped });
    }
    packer.finish()
}

/// The state of one packing run.
struct Packer<'a> {
    config: &'a PackConfig,
    source: &'a Source,
    staging: PathBuf,
    shard: Option<ShardWriter>,
    shards: Vec<ShardEntry>,
    samples: u64,
    labels: std::collections::BTreeSet<u32>,
    moments: Moments,
    skipped: Vec<Skipped>,
    bytes: Vec<u8>,
    decoder: Decoder,
    image: RgbImage,
}

impl<'a> Packer<'a> {
    fn new(config: &'a PackConfig, source: &'a Source) -> Result<Self, DataError> {
        let staging = config.output.join(STAGING);
        clear(&staging)?;
        std::fs::create_dir_all(&staging).map_err(DataError::io("create folder", &staging))?;
        let ignored = source.ignored.iter().map(|(path, reason)| Skipped {
            path: path.display().to_string(),
            reason: (*reason).to_owned(),
        });
        Ok(Self {
            config,
            source,
            staging,
            shard: None,
            shards: Vec::new(),
            samples: 0,
            labels: std::collections::BTreeSet::new(),
            moments: Moments::default(),
            skipped: ignored.collect(),
            bytes: Vec::new(),
            decoder: Decoder::default(),
            image: RgbImage::default(),
        })
    }

    fn add(&mut self, item: &crate::sources::Item) -> Result<(), DataError> {
        let usable = self
            .source
            .load(item, &mut self.bytes)
            .and_then(|()| self.decoder.decode(&self.bytes, &mut self.image));
        if let Err(reason) = usable {
            self.skipped.push(Skipped { path: self.source.origin(item), reason });
            return Ok(());
        }
        let mut shard = match self.shard.take() {
            Some(shard) => shard,
            None => ShardWriter::create(self.staging.join(shard_name(self.shards.len())))?,
        };
        shard.append(SampleId(self.samples), &self.bytes, item.label)?;
        self.samples += 1;
        self.labels.insert(item.label.0);
        self.moments.add(&self.image);
        if shard.samples() == self.config.shard_samples {
            self.shards.push(shard.finish()?);
        } else {
            self.shard = Some(shard);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<PackReport, DataError> {
        if let Some(shard) = self.shard.take() {
            self.shards.push(shard.finish()?);
        }
        if self.samples == 0 {
            return Err(DataError::NoImages { path: self.config.input.clone() });
        }
        let empty_classes = empty_classes(self.config, self.source, self.labels.iter().copied())?;
        let classes = self.source.classes.clone();
        let manifest = Manifest::new(classes, self.moments.mean_and_std(), self.shards);
        self.skipped.sort_unstable();
        let report = PackReport {
            samples: manifest.samples(),
            classes: manifest.classes().len(),
            shards: manifest.shards().len(),
            bytes: manifest.shards().iter().map(|shard| shard.bytes).sum(),
            fingerprint: manifest.fingerprint(),
            empty_classes,
            skipped: self.skipped,
        };
        publish(&self.config.output, &self.staging, &manifest, &report)?;
        Ok(report)
    }
}

/// Moves complete shards to their place; the manifest comes last.
fn publish(
    output: &Path,
    staging: &Path,
    manifest: &Manifest,
    report: &PackReport,
) -> Result<(), DataError> {
    // The old manifest goes first: never a manifest with shards of another set.
    while let Some(name) = occupant(output)? {
        let path = output.join(name);
        std::fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
    }
    for shard in manifest.shards() {
        let path = output.join(&shard.file);
        std::fs::rename(staging.join(&shard.file), &path).map_err(DataError::io("create", path))?;
    }
    clear(staging)?;
    let text = serde_json::to_vec_pretty(report).expect("a report is plain data");
    manifest::write_atomically(output, REPORT_NAME, &text)?;
    manifest.store(output)
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
        let number = name.strip_prefix("shard-").and_then(|rest| rest.strip_suffix(".tar"));
        if number.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit())) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn clear(folder: &Path) -> Result<(), DataError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(DataError::io("remove folder", folder)),
    }
}

/// Names of classes that are not among `labels`; an error unless they are allowed.
fn empty_classes(
    config: &PackConfig,
    source: &Source,
    labels: impl Iterator<Item = u32>,
) -> Result<Vec<String>, DataError> {
    let mut empty: std::collections::BTreeSet<usize> = (0..source.classes.len()).collect();
    for label in labels {
        empty.remove(&(label as usize));
    }
    if !empty.is_empty() && !config.allow_empty_classes {
        let folders = empty.into_iter().map(|class| source.class_folder(class)).collect();
        return Err(DataError::EmptyClasses { folders });
    }
    Ok(empty.into_iter().map(|class| source.classes[class].clone()).collect())
}

fn shard_name(number: usize) -> String {
    format!("shard-{number:06}.tar")
}

/// Sums for mean and deviation of each channel; whole numbers, so exact in any order.
#[derive(Default)]
struct Moments {
    pixels: u64,
    sums: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    fn add(&mut self, image: &RgbImage) {
        let pixels = image.pixels.as_chunks::<3>().0;
        self.pixels += pixels.len() as u64;
        for pixel in pixels {
            for ((sum, square), value) in self.sums.iter_mut().zip(&mut self.squares).zip(pixel) {
                let value = u64::from(*value);
                *sum += value;
                *square += value * value;
            }
        }
    }

    /// In 0..=1; `None` if a channel is constant, since nothing can be divided by that.
    #[expect(clippy::cast_precision_loss, reason = "sums of bytes; 53 bits are plenty")]
    #[expect(clippy::cast_possible_truncation, reason = "values in 0..=1")]
    fn mean_and_std(&self) -> Option<([f32; 3], [f32; 3])> {
        let pixels = self.pixels as f64;
        let mean = self.sums.map(|sum| sum as f64 / pixels);
        let std: [f64; 3] = std::array::from_fn(|channel| {
            (self.squares[channel] as f64 / pixels - mean[channel] * mean[channel]).max(0.0).sqrt()
        });
        let scaled = |values: [f64; 3]| values.map(|value| (value / 255.0) as f32);
        std.iter().all(|deviation| *deviation > 0.0).then(|| (scaled(mean), scaled(std)))
    }
}
