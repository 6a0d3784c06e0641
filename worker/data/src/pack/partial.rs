//! What is left of a packing that was ended from outside, and how it goes on.
//!
//! ```text
//! OUTPUT/.packing/shard-000000.tar, …    whole shards only, with their offsets; the one being written has another name
//!                 partial.json           settings, and everything that later shards depend on
//! ```
//!
//! The file is replaced after each shard, so packing goes on at the first image behind the last whole
//! shard, with the same result as if nothing had happened. Other settings or another source are refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::moments::Moments;
use super::{OddFile, PackConfig};
use crate::encode;
use crate::error::DataError;
use crate::manifest::{ShardEntry, write_atomically};
use crate::offsets;
use crate::sources::Source;

/// Shards lie here, inside the output, until all are complete.
const FOLDER: &str = ".packing";
const FILE_NAME: &str = "partial.json";

/// Everything that decides what is packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Another version may convert images otherwise.
    program: String,
    source: String,
    shard_samples: u64,
    seed: u64,
    short_side: Option<u32>,
    jpeg_quality: u8,
}

/// Everything known at the end of a whole shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Partial {
    pub(super) settings: Settings,
    /// Images dealt with, in shuffled order.
    pub(super) done: usize,
    pub(super) shards: Vec<ShardEntry>,
    /// Labels that have an image.
    pub(super) labels: BTreeSet<u32>,
    pub(super) moments: Moments,
    pub(super) odd: Vec<OddFile>,
    /// The old data set is gone, and shards are on their way from here to their place.
    pub(super) publishing: bool,
}

impl Settings {
    pub(super) fn of(config: &PackConfig, source: &Source) -> Result<Self, DataError> {
        Ok(Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.fingerprint()?,
            shard_samples: config.shard_samples,
            seed: config.seed,
            short_side: config.short_side,
            jpeg_quality: encode::JPEG_QUALITY,
        })
    }

    /// How two settings differ, as a list.
    fn differences(&self, other: &Self) -> String {
        let side = |side: Option<u32>| side.map_or("none".to_owned(), |side| side.to_string());
        let samples = [self, other].map(|settings| settings.shard_samples.to_string());
        let seeds = [self, other].map(|settings| settings.seed.to_string());
        let sides = [self, other].map(|settings| side(settings.short_side));
        let qualities = [self, other].map(|settings| settings.jpeg_quality.to_string());
        let programs = [self, other].map(|settings| settings.program.clone());
        let named = [
            ("the number of samples per shard", samples),
            ("the seed", seeds),
            ("the short side", sides),
            ("the JPEG quality", qualities),
            ("the version of this program", programs),
        ];
        let mut found: Vec<_> = named
            .into_iter()
            .filter(|(_, [then, now])| then != now)
            .map(|(name, [then, now])| format!("{name} was {then}, now {now}"))
            .collect();
        if self.source != other.source {
            found.push("the source is another, or has changed since".to_owned());
        }
        found.join("; ")
    }
}

impl Partial {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            done: 0,
            shards: Vec::new(),
            labels: BTreeSet::new(),
            moments: Moments::default(),
            odd: Vec::new(),
            publishing: false,
        }
    }

    pub(super) fn folder(output: &Path) -> PathBuf {
        output.join(FOLDER)
    }

    /// Is a packing on its way from the partial folder of `output` to its place?
    pub(super) fn is_publishing(output: &Path) -> bool {
        matches!(Self::load(output), Ok(Some(partial)) if partial.publishing)
    }

    /// What there is to go on from: nothing at first.
    ///
    /// # Errors
    ///
    /// If something else was begun here, or a shard of it is gone.
    pub(super) fn resume(output: &Path, settings: Settings) -> Result<Self, DataError> {
        let folder = Self::folder(output);
        let Some(partial) = Self::load(output)? else {
            clear(&folder)?;
            std::fs::create_dir_all(&folder).map_err(DataError::io("create folder", &folder))?;
            return Ok(Self::new(settings));
        };
        let refuse = |problem| DataError::OtherPacking { path: folder.clone(), problem };
        if partial.settings != settings {
            return Err(refuse(partial.settings.differences(&settings)));
        }
        for shard in &partial.shards {
            let is_whole = |place: &&Path| {
                let file = place.join(&shard.file).metadata();
                file.is_ok_and(|file| file.len() == shard.bytes)
            };
            let has_offsets = |place: &&Path| place.join(offsets::name(&shard.file)).is_file();
            let places = [&*folder, output];
            if !places.iter().any(is_whole) || !places.iter().any(has_offsets) {
                return Err(refuse(format!("{} is gone or has changed", shard.file)));
            }
        }
        Ok(partial)
    }

    /// Stores it, whole or not at all.
    pub(super) fn store(&self, output: &Path) -> Result<(), DataError> {
        let text = serde_json::to_vec(self).expect("plain data");
        write_atomically(&Self::folder(output), FILE_NAME, &text)
    }

    pub(super) fn samples(&self) -> u64 {
        self.shards.iter().map(|shard| shard.samples).sum()
    }

    fn load(output: &Path) -> Result<Option<Self>, DataError> {
        let folder = Self::folder(output);
        let path = folder.join(FILE_NAME);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(DataError::io("read", &path))?,
        };
        let problem = |error| format!("its {FILE_NAME} cannot be read: {error}");
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| DataError::OtherPacking { path: folder, problem: problem(error) })
    }
}

/// Removes a folder with everything in it.
pub(super) fn clear(folder: &Path) -> Result<(), DataError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(DataError::io("remove folder", folder)),
    }
}
