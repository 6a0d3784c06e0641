//! Batches of view pairs, made ahead of the training step.
//!
//! ```text
//!  order ──▶ ids of a batch ──▶ read, decode, two views ──▶ bounded queue ──▶ next_batch()
//!                               one slot at a time, any thread        ◀── recycle()
//! ```
//!
//! The content of a batch is fixed by (cursor, lane, slot) and the seed, never
//! by timing: a thread writes only into the slot it took. Batches come in the
//! order of their cursors.
//!
//! A damaged image does not stop a run: the next good sample of its shard
//! takes its place (and its draws), and the batch says so in
//! [`LoadedBatch::replaced`]. A failing disk does stop it.
//!
//! `worker.rs` fills one slot.

mod worker;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cache::{CacheEvent, CoefficientCache};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::order::Order;
use crate::parallel;
use crate::sample::{Label, SampleId};
use crate::view::ViewRecipe;
use worker::{Job, Slot, Worker};

/// What a loader reads, and with how much of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Seed of the augmentations.
    pub seed: u64,
    /// The lanes that this rank was dealt.
    pub lanes: Range<u32>,
    /// The global batch to begin with, counted from the start of the run.
    pub first_cursor: u64,
    /// Threads that read, decode and augment.
    pub threads: usize,
    /// Finished batches that may wait in the queue.
    pub batches_ahead: usize,
}

/// This rank's share of a global batch.
#[derive(Debug, Default)]
pub struct LoadedBatch {
    /// The global batch, counted from the start of the run.
    pub cursor: u64,
    /// The samples by (lane, slot), as the order gives them.
    pub sample_ids: Vec<SampleId>,
    /// Their labels (those of the replacements where there are any).
    pub labels: Vec<Label>,
    /// First views, NHWC, normalized.
    pub view_one: Vec<f32>,
    /// Second views, NHWC, normalized.
    pub view_two: Vec<f32>,
    /// Damaged samples and what was used in their place.
    pub replaced: Vec<Replacement>,
    /// Samples whose coefficients were in the cache.
    pub cached: usize,
    /// What happened to the cache since the batch before.
    pub cache_events: Vec<CacheEvent>,
    /// What making the batch took, summed over threads.
    pub times: StageTimes,
}

/// A damaged sample that was not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The sample that the order asked for.
    pub wanted: SampleId,
    /// The sample that was used.
    pub used: SampleId,
    /// What is wrong with the wanted one, with the name of its shard.
    pub reason: String,
}

/// Time per stage, summed over threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Reading stored bytes, or coefficients from the cache.
    pub read: Duration,
    /// Decoding to planes, as much as the crops need; packing for the cache too where there is one.
    pub decode: Duration,
    /// Crop, resize and flip of both views.
    pub resize: Duration,
    /// Jitter and grayscale of both views; the steps after them too where there is no blur.
    pub colour: Duration,
    /// Blur of the views that have it, and the steps after it.
    pub blur: Duration,
}

/// Ends a loader from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<AtomicBool>);

impl Stopper {
    /// No more batches are made; whoever waits for the next one is told so.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes batches on threads of its own; dropping it joins them.
#[derive(Debug)]
pub struct Loader {
    batches: Option<Receiver<Result<LoadedBatch, DataError>>>,
    used: Sender<LoadedBatch>,
    stop: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts making batches.
    ///
    /// # Errors
    ///
    /// If a setting cannot work or the operating system refuses a thread.
    pub fn start(
        dataset: Arc<Dataset>,
        order: Order,
        recipe: ViewRecipe,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        recipe.check()?;
        config.check(&order)?;
        let (sender, batches) = sync_channel(config.batches_ahead);
        let (used, free) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..config.threads).map(|_| Worker::default()).collect();
        let maker =
            Maker { dataset, order, recipe, config, workers, free, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .spawn(move || maker.run(&sender))
            .map_err(DataError::io("start a thread for", "the loader"))?;
        Ok(Self { batches: Some(batches), used, stop: Stopper(stop), thread: Some(thread) })
    }

    /// The next batch, in the order of cursors; waits until it is ready.
    ///
    /// # Errors
    ///
    /// If reading failed. The loader then makes no more batches.
    pub fn next_batch(&mut self) -> Result<LoadedBatch, DataError> {
        let batches = self.batches.as_ref().ok_or(DataError::LoaderStopped)?;
        batches.recv().unwrap_or(Err(DataError::LoaderStopped))
    }

    /// What ends this loader while another thread waits for a batch.
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// Gives the memory of a batch back for a later one.
    pub fn recycle(&self, batch: LoadedBatch) {
        // Nobody takes it after the loader has stopped; then it is simply freed.
        drop(self.used.send(batch));
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.stop();
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            // A panic was already printed by the thread itself.
            drop(thread.join());
        }
    }
}

impl LoaderConfig {
    fn check(&self, order: &Order) -> Result<(), DataError> {
        let lanes = order.lanes();
        if self.lanes.is_empty() || self.lanes.end > lanes {
            let Range { start, end } = self.lanes;
            let problem = format!("are {start}..{end}; a rank needs at least one of 0..{lanes}");
            return Err(DataError::setting("lanes", problem));
        }
        if self.threads == 0 {
            return Err(DataError::setting("threads", "is 0; choose 1 or more"));
        }
        Ok(())
    }
}

/// The loader's thread: everything that making a batch needs.
struct Maker {
    dataset: Arc<Dataset>,
    order: Order,
    recipe: ViewRecipe,
    config: LoaderConfig,
    workers: Vec<Worker>,
    free: Receiver<LoadedBatch>,
    stop: Arc<AtomicBool>,
}

impl Maker {
    fn run(mut self, batches: &SyncSender<Result<LoadedBatch, DataError>>) {
        for cursor in self.config.first_cursor.. {
            let batch = self.make(cursor);
            let failed = batch.is_err();
            if batches.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn make(&mut self, cursor: u64) -> Result<LoadedBatch, DataError> {
        let mut batch = self.free.try_recv().unwrap_or_default();
        let view_len = self.recipe.view_len();
        batch.cursor = cursor;
        let lanes = self.config.lanes.clone();
        match self.dataset.read_ahead() {
            0 => {}
            ahead => self.dataset.expect(self.order.shards_ahead(cursor, lanes.clone(), ahead)),
        }
        batch.sample_ids = self.order.batch(cursor, lanes);
        let samples = batch.sample_ids.len();
        batch.labels.resize(samples, Label(0));
        batch.view_one.resize(samples * view_len, 0.0);
        batch.view_two.resize(samples * view_len, 0.0);

        let replaced = Mutex::new(Vec::new());
        let job = Job {
            dataset: &self.dataset,
            recipe: &self.recipe,
            seed: self.config.seed,
            data_epoch: self.order.data_epoch(cursor),
            stop: &self.stop,
            replaced: &replaced,
        };
        let views = batch.view_one.chunks_exact_mut(view_len);
        let views = views.zip(batch.view_two.chunks_exact_mut(view_len));
        let slots = batch
            .sample_ids
            .iter()
            .zip(&mut batch.labels)
            .zip(views)
            .enumerate()
            .map(|(index, ((id, label), (one, two)))| Slot { index, id: *id, label, one, two });
        parallel::for_each(&mut self.workers, slots, |worker, slot| worker.fill(&job, slot))?;

        let mut replaced = replaced.into_inner().expect("no holder of this lock can panic");
        replaced.sort_unstable_by_key(|(index, _)| *index);
        batch.replaced = replaced.into_iter().map(|(_, replacement)| replacement).collect();
        batch.times = self.workers.iter_mut().map(|worker| std::mem::take(&mut worker.times)).sum();
        batch.cached =
            self.workers.iter_mut().map(|worker| std::mem::take(&mut worker.cached)).sum();
        let cache = self.dataset.cache();
        batch.cache_events = cache.map(CoefficientCache::take_events).unwrap_or_default();
        Ok(batch)
    }
}

impl std::iter::Sum for StageTimes {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |sum, next| Self {
            read: sum.read + next.read,
            decode: sum.decode + next.decode,
            resize: sum.resize + next.resize,
            colour: sum.colour + next.colour,
            blur: sum.blur + next.blur,
        })
    }
}
