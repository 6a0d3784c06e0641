//! The border between async and compute.
//!
//! One thread, the trainer's, owns model, device and communicators; the session with the coordinator is
//! async. Orders go one way, words for the coordinator the other, and a few flags are shared. The trainer
//! never sees a future, the session never a tensor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lockstep_collective::AbortHandle;
use lockstep_proto::ids::Generation;
use lockstep_proto::{Activity, Heartbeat, PlanWindow, Welcome, WorkerMessage, World};
use tokio::sync::mpsc::{self, error::TrySendError};

/// What the session tells the trainer, in order.
#[derive(Debug)]
pub(crate) enum Order {
    /// A coordinator has welcomed this process: enlist (again).
    Welcomed(Box<Welcome>),
    /// Train in this world; `AbortHandle` ends its collectives.
    Train(Box<World>, AbortHandle),
    /// More steps may be run.
    Plan(PlanWindow),
    /// Write a checkpoint at the next step edge of the world of this generation.
    Save(Generation),
    /// The world of this generation is over, whatever it is doing.
    Abort(Generation, String),
    /// The process ends.
    Quit,
}

/// Orders that may wait. A world sends a plan window every few dozen steps; nothing else is frequent.
const ORDERS: usize = 256;

/// Words that may wait while the coordinator is away: more than the steps that the trainer can run
/// without it, which two plan windows bound.
const WORDS: usize = 4 * lockstep_proto::limits::MAX_PLAN_STEPS;

/// What both sides read and write without waiting.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The newest world that was asked to stop.
    stop: AtomicU64,
    leave: AtomicBool,
    generation: AtomicU64,
    step: AtomicU64,
    sequence: AtomicU64,
}

impl Shared {
    /// Asks the trainer to stop the world of this generation at the next step edge that all ranks agree on. A request
    /// that comes late, when the other ranks have stopped it already, says nothing about the next world.
    pub(crate) fn request_stop(&self, generation: Generation) {
        self.stop.store(generation.0, Ordering::Relaxed);
    }

    /// Asks the trainer to stop whatever world it is in, and not to enlist again.
    pub(crate) fn request_leave(&self) {
        self.leave.store(true, Ordering::Relaxed);
    }

    pub(crate) fn wants_stop(&self, generation: Generation) -> bool {
        self.wants_leave() || self.stop.load(Ordering::Relaxed) == generation.0
    }

    pub(crate) fn wants_leave(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }

    pub(crate) fn world_ended(&self) {
        self.generation.store(0, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self, generation: Generation, step: u64, sequence: u64) {
        self.step.store(step, Ordering::Relaxed);
        self.sequence.store(sequence, Ordering::Relaxed);
        self.generation.store(generation.0, Ordering::Relaxed);
    }

    pub(crate) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            generation: Generation(self.generation.load(Ordering::Relaxed)),
            step: lockstep_proto::ids::Step(self.step.load(Ordering::Relaxed)),
            collective_sequence: self.sequence.load(Ordering::Relaxed),
            activity: self.in_world().then_some(Activity::Stepping),
        }
    }

    /// Whether the trainer is in a world.
    pub(crate) fn in_world(&self) -> bool {
        self.generation.load(Ordering::Relaxed) != 0
    }
}

/// The trainer's end.
#[derive(Debug)]
pub(crate) struct TrainerEnd {
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) words: mpsc::Sender<WorkerMessage>,
    pub(crate) shared: Arc<Shared>,
}

impl TrainerEnd {
    /// Queues a message for the coordinator; never waits for the network.
    pub(crate) fn say(&self, message: WorkerMessage) {
        match self.words.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => tracing::debug!("the session is over; nobody listens"),
            Err(TrySendError::Full(_)) => tracing::warn!("a message to the coordinator is lost"),
        }
    }
}

/// The session's end.
#[derive(Debug)]
pub(crate) struct SessionEnd {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) words: mpsc::Receiver<WorkerMessage>,
    pub(crate) shared: Arc<Shared>,
}

/// Both ends.
pub(crate) fn border() -> (SessionEnd, TrainerEnd) {
    let (order, orders) = mpsc::channel(ORDERS);
    let (word, words) = mpsc::channel(WORDS);
    let shared = Arc::new(Shared::default());
    let trainer = TrainerEnd { orders, words: word, shared: Arc::clone(&shared) };
    (SessionEnd { orders: order, words, shared }, trainer)
}
