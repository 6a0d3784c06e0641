//! `manifest.json`: what a data set holds. Written last, so its presence means complete.
//!
//! Read at the border into private fields: after [`Manifest::load`] the shard
//! names stay inside the folder, the counts add up and the checksums have the
//! right form.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::files::{DataFiles, Folder};
use crate::sample::{SampleAddress, SampleId};

/// Name of the manifest in its folder.
pub(crate) const FILE_NAME: &str = "manifest.json";
const FORMAT_VERSION: u32 = 1;
const CHECKSUM_KIND: &str = "blake3";

/// One shard, as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name in the folder of the manifest.
    pub file: String,
    /// Samples in it.
    pub samples: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file, in lower-case hexadecimal digits.
    pub checksum: String,
    /// BLAKE3 of the file beside it that says where its samples lie, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<String>,
}

/// Contents of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "Wire")]
pub struct Manifest {
    classes: Vec<String>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    shards: Vec<ShardEntry>,
    /// First sample of each shard, and the total at the end.
    starts: Vec<u64>,
}

/// The manifest as it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    checksum: String,
    samples: u64,
    classes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mean: Option<[f32; 3]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    std: Option<[f32; 3]>,
    shards: Vec<ShardEntry>,
}

/// Read before the rest, whose shape may differ in another version.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Manifest {
    /// Reads the manifest of the data set in the folder `dir`.
    ///
    /// # Errors
    ///
    /// As [`Manifest::of`].
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        Self::of(&Folder::new(dir))
    }

    /// Reads the manifest of a data set.
    ///
    /// # Errors
    ///
    /// If the data set or its manifest is missing, is of another version, or
    /// contradicts itself.
    pub fn of(files: &dyn DataFiles) -> Result<Self, DataError> {
        Self::parse(&files.manifest()?, &files.place(FILE_NAME))
    }

    /// Samples in all shards.
    pub fn samples(&self) -> u64 {
        self.starts.last().copied().unwrap_or_default()
    }

    /// Shards in manifest order.
    pub fn shards(&self) -> &[ShardEntry] {
        &self.shards
    }

    /// Samples of each shard, as [`crate::Order::new`] wants them.
    pub fn shard_sizes(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.samples).collect()
    }

    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Mean of each colour channel over all pixels, in 0..=1, if it was measured.
    pub fn mean(&self) -> Option<[f32; 3]> {
        self.mean
    }

    /// Standard deviation of each colour channel over all pixels, if it was measured.
    pub fn std(&self) -> Option<[f32; 3]> {
        self.std
    }

    /// Names the content: equal on two machines if and only if their data sets are.
    pub fn fingerprint(&self) -> String {
        blake3::hash(&self.json()).to_hex().to_string()
    }

    /// Where a sample lies; `None` past the end.
    pub fn locate(&self, id: SampleId) -> Option<SampleAddress> {
        if id.0 >= self.samples() {
            return None;
        }
        let shard = self.starts.partition_point(|start| *start <= id.0) - 1;
        Some(SampleAddress { shard, index: id.0 - self.starts[shard] })
    }

    /// The sample at an address; the inverse of [`Manifest::locate`].
    ///
    /// # Panics
    ///
    /// If the shard is not in the manifest.
    pub fn id(&self, address: SampleAddress) -> SampleId {
        SampleId(self.starts[address.shard] + address.index)
    }

    pub(crate) fn new(
        classes: Vec<String>,
        moments: Option<([f32; 3], [f32; 3])>,
        shards: Vec<ShardEntry>,
    ) -> Self {
        let mut starts = vec![0_u64];
        starts.extend(shards.iter().scan(0_u64, |end, shard| {
            *end = end.saturating_add(shard.samples);
            Some(*end)
        }));
        let (mean, std) = moments.unzip();
        Self { classes, mean, std, shards, starts }
    }

    pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Self, DataError> {
        let bad = |problem: String| DataError::BadManifest { path: path.to_owned(), problem };
        let unreadable = |error: serde_json::Error| bad(format!("cannot be read: {error}"));
        let Version { version } = serde_json::from_slice(text).map_err(unreadable)?;
        if version != FORMAT_VERSION {
            return Err(DataError::UnsupportedVersion {
                path: path.to_owned(),
                found: version,
                supported: FORMAT_VERSION,
            });
        }
        let wire: Wire = serde_json::from_slice(text).map_err(unreadable)?;
        wire.check().map_err(bad)?;
        let Wire { version: _, checksum: _, samples, classes, mean, std, shards } = wire;
        let manifest = Self::new(classes, mean.zip(std), shards);
        if manifest.samples() != samples {
            let sum = manifest.samples();
            return Err(bad(format!("says {samples} samples, but its shards hold {sum}")));
        }
        Ok(manifest)
    }

    /// Writes the manifest so that it is there whole or not at all.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), DataError> {
        write_atomically(dir, FILE_NAME, &self.json())
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest is plain data")
    }
}

/// Temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write_atomically(dir: &Path, name: &str, content: &[u8]) -> Result<(), DataError> {
    let temporary = dir.join(format!(".{name}.partial"));
    let mut file =
        std::fs::File::create(&temporary).map_err(DataError::io("create", &temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(DataError::io("write", &temporary))?;
    let path = dir.join(name);
    std::fs::rename(&temporary, &path).map_err(DataError::io("create", &path))?;
    sync_folder(dir)
}

/// Makes renames in `dir` survive a power cut.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), DataError> {
    std::fs::File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(DataError::io("flush folder", dir))
}

impl From<Manifest> for Wire {
    fn from(manifest: Manifest) -> Self {
        let samples = manifest.samples();
        let Manifest { classes, mean, std, shards, starts: _ } = manifest;
        Self {
            version: FORMAT_VERSION,
            checksum: CHECKSUM_KIND.to_owned(),
            samples,
            classes,
            mean,
            std,
            shards,
        }
    }
}

impl Wire {
    fn check(&self) -> Result<(), String> {
        if self.checksum != CHECKSUM_KIND {
            return Err(format!("has {} checksums, expected {CHECKSUM_KIND}", self.checksum));
        }
        if self.mean.is_some() != self.std.is_some() {
            return Err("has only one of `mean` and `std`".to_owned());
        }
        let mut names = std::collections::BTreeSet::new();
        for shard in &self.shards {
            shard.check()?;
            if !names.insert(&shard.file) {
                return Err(format!("lists {} twice", shard.file));
            }
        }
        Ok(())
    }
}

impl ShardEntry {
    fn check(&self) -> Result<(), String> {
        let Self { file, samples, bytes: _, checksum, offsets } = self;
        let plain = !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0']);
        if !plain {
            return Err(format!("names a shard {file:?}, which is not a plain file name"));
        }
        if *samples == 0 {
            return Err(format!("lists {file} with 0 samples"));
        }
        if ![Some(checksum), offsets.as_ref()].into_iter().flatten().all(|text| is_blake3(text)) {
            return Err(format!("has no BLAKE3 checksum for {file}"));
        }
        Ok(())
    }
}

fn is_blake3(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        let shard = |index: u64| ShardEntry {
            file: format!("shard-{index:06}.tar"),
            samples: 10 + index,
            bytes: 10_240,
            checksum: "0123456789abcdef".repeat(4),
            offsets: (index > 0).then(|| "fedcba9876543210".repeat(4)),
        };
        let moments = Some(([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]));
        Manifest::new(vec!["cat".into(), "dog".into()], moments, (0..3).map(shard).collect())
    }

    fn parse(text: &str) -> Result<Manifest, DataError> {
        Manifest::parse(text.as_bytes(), Path::new("set/manifest.json"))
    }

    #[test]
    fn a_stored_manifest_is_read_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        manifest().store(dir.path()).unwrap();
        let loaded = Manifest::load(dir.path()).unwrap();
        assert_eq!(loaded, manifest());
        assert_eq!(loaded.fingerprint(), manifest().fingerprint());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn every_sample_is_found_in_its_shard_and_back() {
        let manifest = manifest();
        assert_eq!(manifest.locate(SampleId(10)), Some(SampleAddress { shard: 1, index: 0 }));
        assert_eq!(manifest.locate(SampleId(33)), None);
        for id in (0..33).map(SampleId) {
            assert_eq!(manifest.id(manifest.locate(id).unwrap()), id);
        }
    }

    #[test]
    fn a_missing_folder_or_manifest_says_how_to_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let no_folder = Manifest::load(&dir.path().join("none")).unwrap_err().to_string();
        assert!(
            no_folder.contains("none does not exist; make it with `worker pack"),
            "{no_folder}"
        );
        let no_manifest = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(no_manifest.contains("holds no manifest.json"), "{no_manifest}");
        assert!(no_manifest.contains("worker pack"), "{no_manifest}");
    }

    #[test]
    fn another_format_version_is_refused_whatever_else_the_file_holds() {
        let error = parse(r#"{"version": 9, "cats": []}"#).unwrap_err().to_string();
        assert!(error.contains("has format version 9, this program reads version 1"), "{error}");
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let good = serde_json::to_string(&manifest()).unwrap();
        let cases = [
            (r#""samples":33"#, r#""samples":34"#, "says 34 samples, but its shards hold 33"),
            ("shard-000001.tar", "../secret.tar", "not a plain file name"),
            ("shard-000001.tar", "shard-000000.tar", "lists shard-000000.tar twice"),
            (r#""samples":11"#, r#""samples":0"#, "with 0 samples"),
            ("0123456789abcdef", "0123456789ABCDEF", "no BLAKE3 checksum"),
            ("fedcba9876543210", "fedcba987654321", "no BLAKE3 checksum"),
            (r#""mean":[0.1,0.2,0.3],"#, "", "only one of `mean` and `std`"),
            ("blake3", "md5", "has md5 checksums"),
        ];
        for (from, to, problem) in cases {
            let error = parse(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error} does not say: {problem}");
        }
    }

    #[test]
    fn another_content_has_another_fingerprint() {
        let good = serde_json::to_string(&manifest()).unwrap();
        let other = parse(&good.replace("cat", "cow")).unwrap();
        assert_ne!(other.fingerprint(), manifest().fingerprint());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Manifest::parse(&text, Path::new("m")).is_err());
        }

        #[test]
        fn no_damage_makes_the_reader_panic(at: prop::sample::Index, byte: u8) {
            let mut text = serde_json::to_vec(&manifest()).unwrap();
            let at = at.index(text.len());
            text[at] = byte;
            let _read = Manifest::parse(&text, Path::new("m"));
        }
    }
}
