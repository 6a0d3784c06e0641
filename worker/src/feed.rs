//! Batches on their way to the device, one step ahead of the step that uses them.
//!
//! ```text
//!  loader ──▶ cut into micro-batches, cast, copied to the device ──▶ next()
//!         ◀────────────────── a thread of its own ◀────────── recycle()
//! ```
//!
//! A batch is handed over when it lies on the device: the trainer's thread moves no pixels.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use lockstep_data::{DataError, LoadedBatch, Loader, Stopper};
use lockstep_nn::{ModelSpec, Views};

/// A batch, and its views as the engine takes them.
#[derive(Debug)]
pub(crate) struct Fed {
    pub(crate) batch: LoadedBatch,
    pub(crate) views: Views,
}

/// Makes batches ready on a thread of its own; dropping it joins it, and the loader.
#[derive(Debug)]
pub(crate) struct Feed {
    ready: Option<Receiver<Result<Fed, DataError>>>,
    used: Sender<LoadedBatch>,
    loader: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts with the loader's next batch; the views are `side` pixels wide and high.
    pub(crate) fn start(loader: Loader, side: u32, spec: ModelSpec) -> io::Result<Self> {
        // The thread holds one batch until it is asked for: that is the step ahead.
        let (sender, ready) = sync_channel(0);
        let (used, free) = channel();
        let stopper = loader.stopper();
        let thread = std::thread::Builder::new()
            .name("feed".into())
            .spawn(move || run(loader, (side, &spec), &free, &sender))?;
        Ok(Self { ready: Some(ready), used, loader: stopper, thread: Some(thread) })
    }

    /// The next batch, in the order of cursors; waits until it is ready.
    pub(crate) fn next(&mut self) -> Result<Fed, DataError> {
        let ready = self.ready.as_ref().ok_or(DataError::LoaderStopped)?;
        ready.recv().unwrap_or(Err(DataError::LoaderStopped))
    }

    /// Gives the memory of a batch back for a later one.
    pub(crate) fn recycle(&self, batch: LoadedBatch) {
        // Nobody takes it after the end; then it is simply freed.
        drop(self.used.send(batch));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.loader.stop();
        drop(self.ready.take());
        if let Some(thread) = self.thread.take() {
            // A panic was already printed by the thread itself.
            drop(thread.join());
        }
    }
}

fn run(
    mut loader: Loader,
    (side, spec): (u32, &ModelSpec),
    used: &Receiver<LoadedBatch>,
    ready: &SyncSender<Result<Fed, DataError>>,
) {
    loop {
        for batch in used.try_iter() {
            loader.recycle(batch);
        }
        let fed = loader.next_batch().map(|batch| {
            #[cfg(feature = "failpoints")]
            let batch = crate::failpoints::poisoned(batch);
            let views = views(&batch, side, spec);
            Fed { batch, views }
        });
        let failed = fed.is_err();
        if ready.send(fed).is_err() || failed {
            return;
        }
    }
}

fn views(batch: &LoadedBatch, side: u32, spec: &ModelSpec) -> Views {
    let labels: Vec<u32> = batch.labels.iter().map(|label| label.0).collect();
    Views::new([&batch.view_one, &batch.view_two], &labels, side, spec)
}
