//! The end of communicators, on threads of their own, since NCCL may block in it.
//!
//! NCCL's manual asks that all ranks of a machine end a communicator together, so a rank that waited
//! for the end of one before it began that of the next could wait for ever. Here each end is begun at
//! once, and the next world waits for all of them, with a deadline.
//!
//! Communicators of one GPU that have operations under way are aborted together too: an abort frees memory, for which CUDA
//! may wait until the GPU is idle, and meanwhile hold up every other call; with an operation of another communicator under way
//! it never is. (NVIDIA/nccl#1013, pytorch/pytorch#119797.) So an abort waits until that of the others has begun.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use super::cuda::{CudaFailure, Device, Event, Staging, Stream};
use super::patience::until;
use super::sys::{Api, Comm};

/// How long an abort waits for those of other communicators to begin.
const TOGETHER: Duration = Duration::from_secs(1);

/// What belongs to a communicator until its end.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) comm: Comm,
    pub(super) stream: Stream,
    pub(super) staging: Staging,
    pub(super) device: Arc<Device>,
}

/// How a communicator ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Everything is over on all ranks.
    Destroy,
    /// Whatever is under way ends now.
    Abort,
}

/// What is under way in this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Closing(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Operations of communicators that are not at their end.
    flying: AtomicUsize,
    /// Communicators at their end.
    ending: AtomicUsize,
}

impl Closing {
    /// `Some` when no communicator is at its end.
    pub(super) fn are_over(&self) -> Option<()> {
        (self.0.ending.load(Ordering::SeqCst) == 0).then_some(())
    }

    /// `Some` when no communicator has an operation under way, but those at their end.
    pub(super) fn nothing_flies(&self) -> Option<()> {
        (self.0.flying.load(Ordering::SeqCst) == 0).then_some(())
    }

    /// Notes an operation.
    pub(super) fn took_off(&self) {
        self.0.flying.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that so many are over, or at their communicator's end.
    pub(super) fn landed(&self, operations: usize) {
        self.0.flying.fetch_sub(operations, Ordering::SeqCst);
    }
}

/// The thread that ends one communicator. Started before it is needed: a thread may be refused.
#[derive(Debug)]
pub(super) struct Closer {
    jobs: Sender<(Lane, Ending)>,
    closing: Closing,
}

impl Closer {
    pub(super) fn start(api: Arc<Api>, device: Arc<Device>, closing: Closing) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let count = closing.clone();
        // Not joined: it may be stuck in NCCL, which `Closing` tells.
        thread::Builder::new().name("nccl-closing".into()).spawn(move || {
            // Now: when it is needed, another communicator's end may hold up CUDA.
            let entered = device.enter();
            // Nothing comes if no communicator was formed.
            if let Ok((lane, ending)) = inbox.recv() {
                end(&api, lane, entered, ending, &count);
                count.0.ending.fetch_sub(1, Ordering::SeqCst);
            }
        })?;
        Ok(Self { jobs, closing })
    }

    /// Begins the end.
    pub(super) fn end(&self, lane: Lane, ending: Ending) {
        self.closing.0.ending.fetch_add(1, Ordering::SeqCst);
        self.jobs.send((lane, ending)).expect("the thread waits for its one communicator");
    }
}

fn end(api: &Api, lane: Lane, entered: Result<(), CudaFailure>, ending: Ending, closing: &Closing) {
    let Lane { comm, stream, staging, device } = lane;
    let ended = match ending {
        Ending::Destroy => api.destroy(comm),
        Ending::Abort => {
            until(TOGETHER, || Ok::<_, Infallible>(closing.nothing_flies())).ok();
            api.abort(comm)
        }
    };
    if let Err(failure) = ended {
        tracing::warn!(%failure, ?ending, "NCCL could not end a communicator");
    }
    // As long as it takes: memory that a copy in the stream still uses can't be freed.
    let idle = entered.and_then(|()| Event::new(&device)).and_then(|last| {
        last.record(Some(&stream))?;
        until(Duration::MAX, || Ok(last.has_come()?.then_some(())))
    });
    if let Err(CudaFailure { call, reason }) = idle {
        tracing::warn!(call, reason, "the GPU is lost, and with it the memory of a communicator");
        Box::leak(Box::new(staging));
    }
}
