//! A data set in a local folder: samples by number.

use std::path::Path;

use lockstep_jpeg::PlanarImage;

use crate::decode::Decoder;
use crate::error::DataError;
use crate::manifest::Manifest;
use crate::sample::{Label, SampleAddress, SampleId};
use crate::shard::Shard;

/// An open data set. Shared by threads; reads are positional and keep no state.
#[derive(Debug)]
pub struct Dataset {
    manifest: Manifest,
    shards: Vec<Shard>,
}

impl Dataset {
    /// Opens the data set in `dir` and indexes its shards.
    ///
    /// Lengths, counts and labels are checked here; checksums take a whole read
    /// and are left to [`crate::verify_shards`].
    ///
    /// # Errors
    ///
    /// If the folder is no data set, or a shard is not what the manifest says.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let manifest = Manifest::load(dir)?;
        let classes = manifest.classes().len();
        let shards = manifest
            .shards()
            .iter()
            .map(|entry| Shard::open(dir, entry, classes))
            .collect::<Result<_, _>>()?;
        Ok(Self { manifest, shards })
    }

    /// What the data set holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Replaces `buffer` with the stored JPEG or PNG of a sample; gives its label.
    ///
    /// # Errors
    ///
    /// If there is no such sample, or the disk fails.
    pub fn read(&self, id: SampleId, buffer: &mut Vec<u8>) -> Result<Label, DataError> {
        let SampleAddress { shard, index } = self.address(id)?;
        self.shards[shard].read(index, buffer)
    }

    /// Reads and decodes one sample.
    ///
    /// # Errors
    ///
    /// As [`Dataset::read`], and [`DataError::BadSample`] if the image is damaged.
    pub fn image(&self, id: SampleId) -> Result<(PlanarImage, Label), DataError> {
        let (mut bytes, mut image) = (Vec::new(), PlanarImage::default());
        let label = self.read(id, &mut bytes)?;
        let mut decoder = Decoder::default();
        let decoded = decoder.open(&bytes).and_then(|open| open.decode_all(&mut image));
        decoded.map_err(|problem| self.bad_sample(id, problem))?;
        Ok((image, label))
    }

    /// Says which sample it is that cannot be decoded.
    pub(crate) fn bad_sample(&self, id: SampleId, problem: String) -> DataError {
        match self.shard_path(id) {
            Ok(path) => DataError::BadSample { id: id.0, path: path.to_owned(), problem },
            Err(error) => error,
        }
    }

    pub(crate) fn shard_path(&self, id: SampleId) -> Result<&Path, DataError> {
        Ok(self.shards[self.address(id)?.shard].path())
    }

    pub(crate) fn address(&self, id: SampleId) -> Result<SampleAddress, DataError> {
        let samples = self.manifest.samples();
        self.manifest.locate(id).ok_or(DataError::NoSuchSample { id: id.0, samples })
    }
}
