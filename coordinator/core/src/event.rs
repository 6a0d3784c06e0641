//! What goes into the machine and what comes out.

use lockstep_proto::ids::{Cursor, Generation, Step};
use lockstep_proto::server::Refusal;
use lockstep_proto::{CoordinatorMessage, Exit, Hello, RunEvent, WorkerMessage};
use serde::Serialize;

use crate::journal::Record;

/// One stream of one worker. The shell numbers them; a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What happened outside.
#[derive(Debug, Clone)]
pub enum Event {
    /// The shell is ready. Comes first, and once.
    Started,
    /// A worker opened a stream and said hello.
    Connected {
        /// The new stream.
        session: SessionId,
        /// Who it is.
        hello: Box<Hello>,
    },
    /// A worker said something.
    Message {
        /// On which stream.
        session: SessionId,
        /// What.
        message: Box<WorkerMessage>,
    },
    /// A stream broke.
    Lost {
        /// Which one. One that the machine closed itself is harmless.
        session: SessionId,
        /// For people.
        why: String,
    },
    /// Time passed.
    Tick,
    /// An operator asks the run to stop; a second time: at once.
    StopRequested,
}

/// What the shell must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Store a record durably before carrying out what follows.
    Journal(Record),
    /// Send a message to a worker.
    Send {
        /// On which stream.
        session: SessionId,
        /// What.
        message: CoordinatorMessage,
    },
    /// Close a stream, with the reason if there is one.
    Close {
        /// Which one.
        session: SessionId,
        /// What the worker is told.
        refusal: Option<Refusal>,
    },
    /// A step was applied by all ranks.
    Applied(AppliedStep),
    /// Something happened that people may ask for later.
    Noted(RunEvent),
    /// The run is over for this process; end once the workers have heard of it.
    Finished(Exit),
}

/// One line of the run's history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppliedStep {
    /// World that applied it. A step may be applied anew by a later world, which then counts.
    pub generation: Generation,
    /// k.
    pub step: Step,
    /// Global batch that was used.
    pub cursor: Cursor,
    /// Data epochs consumed after it, with fraction.
    pub data_epoch: f64,
    /// Loss over the global batch, 0 to 8.
    pub loss: f64,
    /// Mean standard deviation of the L2-normalized projections.
    pub z_std: f64,
    /// η.
    pub learning_rate: f64,
    /// τ.
    pub decay: f64,
    /// Images per second of the whole world in this step.
    pub images_per_second: f64,
    /// Share of step time spent waiting for input, worst rank, 0 to 1.
    pub data_wait: f64,
    /// Cross-entropy of the online probe.
    pub probe_loss: Option<f64>,
    /// Accuracy of the online probe, 0 to 1.
    pub probe_accuracy: Option<f64>,
    /// Accuracy of the kNN evaluation after this step, 0 to 1.
    pub knn_accuracy: Option<f64>,
}
