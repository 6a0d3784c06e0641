//! One thread of the loader: from a sample's number to its two views.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockstep_jpeg::PlanarImage;

use super::{Replacement, StageTimes};
use crate::augment::Augmenter;
use crate::dataset::Dataset;
use crate::decode::{Decoder, OpenImage};
use crate::error::{DataError, Verdict};
use crate::sample::{Label, SampleAddress, SampleId};
use crate::view::{View, ViewKey, ViewParams, ViewRecipe};

/// Samples that are tried in place of a damaged one before the run stops.
const MAX_REPLACEMENTS: u64 = 32;
/// How often a thread that waits for a shard looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(100);

/// What all slots of a batch have in common.
pub(super) struct Job<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) recipe: &'a ViewRecipe,
    pub(super) seed: u64,
    pub(super) data_epoch: u64,
    pub(super) stop: &'a AtomicBool,
    pub(super) replaced: &'a Mutex<Vec<(usize, Replacement)>>,
}

/// One place of a batch.
pub(super) struct Slot<'a> {
    pub(super) index: usize,
    pub(super) id: SampleId,
    pub(super) label: &'a mut Label,
    pub(super) one: &'a mut [f32],
    pub(super) two: &'a mut [f32],
}

/// One thread's buffers.
#[derive(Default)]
pub(super) struct Worker {
    bytes: Vec<u8>,
    decoder: Decoder,
    image: PlanarImage,
    augmenter: Augmenter,
    /// Samples that came from the cache since the last batch.
    pub(super) cached: usize,
    pub(super) times: StageTimes,
}

impl Worker {
    /// Fills one place of a batch.
    pub(super) fn fill(&mut self, job: &Job<'_>, slot: Slot<'_>) -> Result<(), DataError> {
        if job.stop.load(Ordering::Relaxed) {
            return Err(DataError::LoaderStopped);
        }
        while !job.dataset.wait(slot.id, WAIT)? {
            if job.stop.load(Ordering::Relaxed) {
                return Err(DataError::LoaderStopped);
            }
        }
        let keys = [View::One, View::Two]
            .map(|view| ViewKey::new(job.seed, job.data_epoch, slot.id, view));
        let (label, params) = match self.load(job, slot.id, keys) {
            Err(error) if error.verdict() == Verdict::ReplaceSample => {
                let (used, loaded) = self.load_replacement(job, slot.id, keys)?;
                let replacement = Replacement { wanted: slot.id, used, reason: error.to_string() };
                let mut replaced = job.replaced.lock().expect("no holder of this lock can panic");
                replaced.push((slot.index, replacement));
                loaded
            }
            loaded => loaded?,
        };
        *slot.label = label;
        for (params, out) in params.iter().zip([slot.one, slot.two]) {
            self.augment(job.recipe, params, out);
        }
        Ok(())
    }

    /// Leaves in `self.image` what the views need of a sample.
    fn load(
        &mut self,
        job: &Job<'_>,
        id: SampleId,
        keys: [ViewKey; 2],
    ) -> Result<(Label, [ViewParams; 2]), DataError> {
        let started = now();
        if let Some(cache) = job.dataset.cache()
            && cache.read(id, &mut self.bytes)
        {
            let label = job.dataset.label(id)?;
            let read = now();
            let image = self.decoder.open_packed(&self.bytes);
            match image.and_then(|image| decode(image, job.recipe, keys, &mut self.image)) {
                Ok(params) => {
                    self.cached += 1;
                    self.times.read += read - started;
                    self.times.decode += read.elapsed();
                    return Ok((label, params));
                }
                Err(problem) => cache.forget(id, problem),
            }
        }
        let label = job.dataset.read(id, &mut self.bytes)?;
        let read = now();
        let params = self.decode(job, id, keys);
        self.times.read += read - started;
        self.times.decode += read.elapsed();
        params.map(|params| (label, params)).map_err(|problem| job.dataset.bad_sample(id, problem))
    }

    /// Decodes a stored image, by way of the cache if that wants it.
    fn decode(
        &mut self,
        job: &Job<'_>,
        id: SampleId,
        keys: [ViewKey; 2],
    ) -> Result<[ViewParams; 2], String> {
        if let Some(cache) = job.dataset.cache()
            && let Some(mut packed) = cache.wants_one()
            && self.decoder.pack(&self.bytes, &mut packed)
        {
            let image = self.decoder.open_packed(&packed)?;
            let params = decode(image, job.recipe, keys, &mut self.image);
            cache.put(id, packed);
            return params;
        }
        decode(self.decoder.open(&self.bytes)?, job.recipe, keys, &mut self.image)
    }

    fn augment(&mut self, recipe: &ViewRecipe, params: &ViewParams, out: &mut [f32]) {
        let started = now();
        self.augmenter.resize(&self.image, params, recipe);
        let resized = now();
        self.augmenter.colour(params, recipe, out);
        let coloured = now();
        self.augmenter.blur(params, recipe, out);
        self.times.resize += resized - started;
        self.times.colour += coloured - resized;
        self.times.blur += coloured.elapsed();
    }

    /// The next good sample of the same shard, from its start again after its end.
    fn load_replacement(
        &mut self,
        job: &Job<'_>,
        bad: SampleId,
        keys: [ViewKey; 2],
    ) -> Result<(SampleId, (Label, [ViewParams; 2])), DataError> {
        let dataset = job.dataset;
        let SampleAddress { shard, index } = dataset.address(bad)?;
        let samples = dataset.manifest().shards()[shard].samples;
        let tried = MAX_REPLACEMENTS.min(samples - 1);
        for distance in 1..=tried {
            let address = SampleAddress { shard, index: (index + distance) % samples };
            let id = dataset.manifest().id(address);
            match self.load(job, id, keys) {
                Err(error) if error.verdict() == Verdict::ReplaceSample => {}
                loaded => return loaded.map(|loaded| (id, loaded)),
            }
        }
        let path = dataset.shard_path(bad)?.to_owned();
        Err(DataError::NoReplacement { id: bad.0, tried, path })
    }
}

/// Draws the views of an image, and leaves in `planes` what they need of it.
fn decode(
    image: OpenImage<'_>,
    recipe: &ViewRecipe,
    keys: [ViewKey; 2],
    planes: &mut PlanarImage,
) -> Result<[ViewParams; 2], String> {
    let (width, height) = (image.width(), image.height());
    let params = keys.map(|key| ViewParams::draw(recipe, width, height, key));
    image.decode(&[params[0].crop, params[1].crop], planes)?;
    Ok(params)
}

#[expect(clippy::disallowed_methods, reason = "stage times are measured here; no result uses them")]
fn now() -> Instant {
    Instant::now()
}
