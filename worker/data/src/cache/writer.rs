//! The thread that fills the cache, and what waits for it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::file::{CacheFile, Kept};
use super::{CacheEvent, Events};
use crate::error::DataError;
use crate::sample::SampleId;

/// Images that may wait.
const QUEUE: usize = 64;
/// Bytes of waiting images at which no other is wanted.
const QUEUE_BYTES: usize = 32 << 20;
/// Images whose memory is kept for others.
const SPARE: usize = 8;

/// Writes images in the background; dropping it writes what waits.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<(SampleId, Vec<u8>)>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    is_filling: AtomicBool,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Memory of images that were written.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Writer {
    pub(super) fn start(file: Arc<CacheFile>, events: Arc<Events>) -> Result<Self, DataError> {
        let (queue, images) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            is_filling: AtomicBool::new(true),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            spare: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("coefficients".into())
            .spawn(move || own.run(&file, &events, &images))
            .map_err(DataError::io("start a thread for", "the coefficient cache"))?;
        Ok(Self { queue: Some(queue), shared, thread: Some(thread) })
    }

    pub(super) fn wants_one(&self) -> Option<Vec<u8>> {
        let Shared { is_filling, waiting, waiting_bytes, .. } = &*self.shared;
        let wants = is_filling.load(Ordering::Relaxed)
            && waiting.load(Ordering::Relaxed) < QUEUE
            && waiting_bytes.load(Ordering::Relaxed) < QUEUE_BYTES;
        wants.then(|| self.shared.spare().pop().unwrap_or_default())
    }

    pub(super) fn put(&self, id: SampleId, packed: Vec<u8>) {
        let bytes = packed.len();
        self.shared.enter(bytes);
        let queue = self.queue.as_ref().expect("there until the writer is dropped");
        // Several threads may have found the last place free.
        if queue.try_send((id, packed)).is_err() {
            self.shared.leave(bytes);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic was already printed by the thread itself.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn run(&self, file: &CacheFile, events: &Events, images: &Receiver<(SampleId, Vec<u8>)>) {
        for (id, packed) in images {
            if self.is_filling.load(Ordering::Relaxed)
                && let Some(event) = ending(file.append(id, &packed))
            {
                self.is_filling.store(false, Ordering::Relaxed);
                events.push(event);
            }
            self.leave(packed.len());
            let mut spare = self.spare();
            if spare.len() < SPARE {
                spare.push(packed);
            }
        }
    }

    fn enter(&self, bytes: usize) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn leave(&self, bytes: usize) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().expect("no holder of this lock can panic")
    }
}

/// Why filling ends, if it does.
fn ending(kept: Result<Kept, DataError>) -> Option<CacheEvent> {
    match kept {
        Ok(Kept::Yes) => None,
        Ok(Kept::Full(bytes)) => Some(CacheEvent::Full { bytes }),
        Err(error) => {
            let reason = std::error::Error::source(&error).map(|source| format!(": {source}"));
            let problem = format!("{error}{}", reason.unwrap_or_default());
            Some(CacheEvent::Failed { problem })
        }
    }
}
