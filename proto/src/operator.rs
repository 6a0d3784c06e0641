//! What an operator may ask of a run.

use std::fmt::{self, Display, Formatter};

use crate::ids::WorkerUid;

/// A call of the operator service. Written out it is as on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorCommand {
    /// End the run at the next step edge, with a checkpoint.
    Stop,
    /// Write a checkpoint at the next step edge.
    Checkpoint,
    /// Hold the run at the next step edge.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Send a worker away at the next step edge, for good.
    Drain(WorkerUid),
}

impl Display for OperatorCommand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.write_str("stop"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Pause => f.write_str("pause"),
            Self::Resume => f.write_str("resume"),
            Self::Drain(worker) => write!(f, "drain {}", worker.0),
        }
    }
}
