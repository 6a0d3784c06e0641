//! The commands of the worker's binary that talk to no coordinator.
//!
//! Each has its arguments and a `run` that returns the exit code; what `run` fails with is printed
//! by `main` and ends with [`failure`].

pub mod bench;
pub mod eval;
pub mod export;
pub(crate) mod features;
pub mod import;
pub mod index;
pub mod pack;
pub mod preview;
pub(crate) mod progress;
pub mod report;
pub mod verify;

pub(crate) mod output;
pub(crate) mod source;

use std::process::ExitCode;

use lockstep_data::DataError;
use lockstep_proto::Exit;
use lockstep_proto::layers::ConfigFaults;

use crate::checkpoint::CheckpointError;

/// The command ran, and what it looked at is faulty.
const FAULTS_FOUND: u8 = 1;

/// What was asked for cannot be done with these arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

/// The exit code for an error: 42 where other arguments or files are needed, 1 where the system failed.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    let faulty = is_fault_of_input(error);
    ExitCode::from(if faulty { Exit::ConfigFault.code() } else { FAULTS_FOUND })
}

/// Whether only other arguments or files can help: starting again would change nothing.
pub(crate) fn is_fault_of_input(error: &anyhow::Error) -> bool {
    let data =
        |cause: &DataError| !matches!(cause, DataError::Io { .. } | DataError::Unavailable { .. });
    let checkpoint = |cause: &CheckpointError| !matches!(cause, CheckpointError::Io { .. });
    error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(data)
            || cause.downcast_ref().is_some_and(checkpoint)
            || cause.is::<ConfigFaults>()
            || cause.is::<Misuse>()
    })
}
