//! A data set: samples by number, wherever its files lie.

use std::path::Path;
use std::time::Duration;

use lockstep_jpeg::PlanarImage;

use crate::cache::{CacheConfig, CoefficientCache};
use crate::decode::Decoder;
use crate::error::DataError;
use crate::files::{DataFiles, Folder};
use crate::manifest::Manifest;
use crate::sample::{Label, SampleAddress, SampleId};
use crate::shard::{Member, Shard};

/// An open data set. Shared by threads; reads are positional.
#[derive(Debug)]
pub struct Dataset {
    manifest: Manifest,
    files: Box<dyn DataFiles>,
    shards: Vec<Shard>,
    cache: Option<CoefficientCache>,
}

impl Dataset {
    /// Opens the data set in the folder `dir` and indexes its shards.
    ///
    /// Lengths, counts and labels are checked here; checksums take a whole read
    /// and are left to [`crate::verify_shards`].
    ///
    /// # Errors
    ///
    /// If the folder is no data set, or a shard is not what the manifest says.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let dataset = Self::of(Box::new(Folder::new(dir)))?;
        for number in 0..dataset.shards.len() {
            dataset.members(number)?;
        }
        Ok(dataset)
    }

    /// Opens a data set by its manifest; a shard is indexed when its first sample is read.
    ///
    /// # Errors
    ///
    /// If there is no manifest, or it cannot be read.
    pub fn of(files: Box<dyn DataFiles>) -> Result<Self, DataError> {
        let manifest = Manifest::of(&*files)?;
        let shards = manifest.shards().iter().map(|entry| Shard::open(&*files, entry));
        let shards = shards.collect::<Result<_, _>>()?;
        Ok(Self { manifest, files, shards, cache: None })
    }

    /// Lets [`Loader`](crate::Loader)s keep the coefficients of baseline JPEGs on the local disk, and read them
    /// there in later data epochs. Views are the same as without.
    ///
    /// # Errors
    ///
    /// If the folder cannot be used.
    pub fn cache_coefficients(&mut self, config: &CacheConfig) -> Result<(), DataError> {
        self.cache = Some(CoefficientCache::open(config, &self.manifest)?);
        Ok(())
    }

    /// Bytes of coefficients that are kept, by this process or another one; `None` without a cache.
    pub fn cached_bytes(&self) -> Option<u64> {
        self.cache.as_ref().map(CoefficientCache::bytes)
    }

    pub(crate) fn cache(&self) -> Option<&CoefficientCache> {
        self.cache.as_ref()
    }

    /// What the data set holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Replaces `buffer` with the stored JPEG or PNG of a sample; gives its label.
    ///
    /// # Errors
    ///
    /// If there is no such sample, or reading fails.
    pub fn read(&self, id: SampleId, buffer: &mut Vec<u8>) -> Result<Label, DataError> {
        let SampleAddress { shard, index } = self.address(id)?;
        self.shards[shard].read(self.member(shard, index)?, buffer)
    }

    /// The label of a sample.
    pub(crate) fn label(&self, id: SampleId) -> Result<Label, DataError> {
        let SampleAddress { shard, index } = self.address(id)?;
        Ok(self.member(shard, index)?.label)
    }

    /// Waits until reading a sample need not wait for its whole shard, but only so long; says whether that is so.
    ///
    /// # Errors
    ///
    /// If there is no such sample, or its shard cannot be had.
    pub fn wait(&self, id: SampleId, at_most: Duration) -> Result<bool, DataError> {
        self.shards[self.address(id)?.shard].wait(at_most)
    }

    /// Says which shards will be read next, the most urgent first.
    pub(crate) fn expect(&self, shards: impl IntoIterator<Item = usize>) {
        let entries: Vec<_> =
            shards.into_iter().map(|number| &self.manifest.shards()[number]).collect();
        self.files.expect(&entries);
    }

    /// The same for samples in manifest order, from `first` on.
    pub(crate) fn expect_from(&self, first: SampleId) {
        if let Some(SampleAddress { shard, .. }) = self.manifest.locate(first) {
            self.expect(shard..self.shards.len().min(shard + 1 + self.read_ahead()));
        }
    }

    /// As [`DataFiles::read_ahead`].
    pub(crate) fn read_ahead(&self) -> usize {
        self.files.read_ahead()
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

    fn member(&self, shard: usize, index: u64) -> Result<Member, DataError> {
        let index = usize::try_from(index).expect("an index of members in memory");
        Ok(self.members(shard)?[index])
    }

    fn members(&self, shard: usize) -> Result<&[Member], DataError> {
        let entry = &self.manifest.shards()[shard];
        self.shards[shard].members(&*self.files, entry, self.manifest.classes().len())
    }

    pub(crate) fn shard_path(&self, id: SampleId) -> Result<&Path, DataError> {
        Ok(self.shards[self.address(id)?.shard].path())
    }

    pub(crate) fn address(&self, id: SampleId) -> Result<SampleAddress, DataError> {
        let samples = self.manifest.samples();
        self.manifest.locate(id).ok_or(DataError::NoSuchSample { id: id.0, samples })
    }
}
