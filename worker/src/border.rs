//! The border between async and compute.
//!
//! One thread, the trainer's, owns model, device and communicators; the session with the coordinator is
//! async. Orders go one way, words for the coordinator the other, and a few flags are shared. The trainer
//! never sees a future, the session never a tensor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstep_collective::AbortHandle;
use lockstep_proto::ids::{Generation, Step};
use lockstep_proto::{
    Activity, CommunicatorIds, Dump, Heartbeat, Membership, PlanWindow, TrainingState, Welcome,
    WorkerMessage, World,
};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::watched::Watch;

/// What the session tells the trainer, in order.
#[derive(Debug)]
pub(crate) enum Order {
    /// A coordinator has welcomed this process: enlist (again).
    Welcomed(Box<Welcome>),
    /// Train in this world; `AbortHandle` ends its collectives.
    Train(Box<World>, AbortHandle),
    /// Where the ranks of its world meet.
    Communicators(Box<CommunicatorIds>),
    /// More steps may be run.
    Plan(PlanWindow),
    /// Write a checkpoint at the next step edge of the world of this generation.
    Save(Generation),
    /// The world of this generation is over, whatever it is doing.
    Abort(Generation, String),
    /// This rank's state is not that of the others: leave it to people, and end.
    Dump(Dump),
    /// The process ends.
    Quit,
}

/// Orders that may wait. A world sends a plan window every few dozen steps; nothing else is frequent.
const ORDERS: usize = 256;

/// Words that may wait while the coordinator is away: more than the steps that the trainer can run
/// without it, which two plan windows bound.
pub(crate) const WORDS: usize = 4 * lockstep_proto::limits::MAX_PLAN_STEPS;

/// What both sides read and write without waiting.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The newest world that was asked to stop.
    stop: AtomicU64,
    leave: AtomicBool,
    place: Mutex<Option<Place>>,
    /// The collectives of the present world.
    pub(crate) watch: Arc<Watch>,
}

/// What the trainer does, while it is in a world.
#[derive(Debug)]
struct Place {
    member: Membership,
    activity: Activity,
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

    /// The trainer enters a world.
    pub(crate) fn enter(&self, world: &World) {
        let World { generation, rank, start, .. } = world;
        let member =
            Membership { generation: *generation, rank: *rank, step: start.step, proven: None };
        *self.place() = Some(Place { member, activity: Activity::Joining });
    }

    /// What the trainer does from now on in its world.
    pub(crate) fn turn_to(&self, activity: Activity) {
        self.in_place(|place| place.activity = activity);
    }

    /// The step in flight.
    pub(crate) fn reach(&self, step: Step) {
        self.in_place(|place| place.member.step = step);
    }

    /// The digest of a state was taken.
    pub(crate) fn prove(&self, state: TrainingState) {
        self.in_place(|place| place.member.proven = Some(state));
    }

    pub(crate) fn world_ended(&self) {
        *self.place() = None;
    }

    pub(crate) fn heartbeat(&self) -> Heartbeat {
        let place = self.place();
        let member = place.as_ref().map(|place| &place.member);
        Heartbeat {
            generation: member.map_or(Generation(0), |member| member.generation),
            step: member.map_or(Step(0), |member| member.step),
            collective_sequence: self.watch.issued(),
            activity: place.as_ref().map(|place| place.activity),
        }
    }

    /// The world that the trainer is in, for a coordinator that may know nothing of it.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.place().as_ref().map(|place| place.member)
    }

    /// Whether the trainer will come to a step edge without further plans.
    pub(crate) fn comes_to_an_edge(&self) -> bool {
        self.place().as_ref().is_some_and(|place| place.activity != Activity::AwaitingPlan)
    }

    fn in_place(&self, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.place().as_mut() {
            change(place);
        }
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
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
