//! How worlds end, and what makes a trainer give up.

use lockstep_collective::{CollectiveError, Recovery};
use lockstep_data::DataError;
use lockstep_proto::ids::Rank;
use lockstep_proto::{Dump, WorldEnd};

use crate::checkpoint::CheckpointError;
use crate::commands::Misuse;

/// Why the trainer gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrainerError {
    #[error("cannot use the checkpoints")]
    Checkpoint(#[from] CheckpointError),
    #[error("the coordinator's configuration changed during the run: {0}; start the worker again")]
    ConfigChanged(String),
    #[error(
        "a world of several ranks on GPUs needs NCCL; build the worker with `--features worker/nccl` and leave \
         `collective.backend` at `auto`, or start the workers with --device cpu"
    )]
    HostOnGpus,
    #[error("cannot take part in this run")]
    Unusable(#[from] Misuse),
    #[error("cannot read training data")]
    Data(#[from] DataError),
    #[error("cannot start a thread for the batches")]
    Thread(#[source] std::io::Error),
}

/// Why a world did not form.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    #[error(
        "ranks {0:?} hold another state than was announced; this is a bug, or their memory is broken"
    )]
    StateDiffers(Vec<lockstep_collective::Rank>),
}

impl JoinError {
    fn culprit(&self) -> Option<Rank> {
        match self {
            Self::Collective(error) => culprit(error),
            Self::StateDiffers(odd) => odd.first().map(|rank| Rank(rank.0)),
        }
    }
}

/// How a world ended.
pub(crate) enum Ended {
    Complete,
    Stopped,
    Aborted(String),
    NotFormed(JoinError),
    Failed(CollectiveError),
    /// This rank's state differs from the others'.
    Odd(Dump),
    Quit,
}

impl Ended {
    /// Whether the device is in no state to go on with: only another process can have it afresh.
    pub(crate) fn spoils_the_process(&self) -> bool {
        let (Self::NotFormed(JoinError::Collective(error)) | Self::Failed(error)) = self else {
            return false;
        };
        error.recovery() == Recovery::Restart
    }

    /// Reason, detail and culprit as the coordinator hears them; `None` when it is not told, because
    /// this process ends.
    pub(crate) fn for_the_coordinator(self) -> Option<(WorldEnd, String, Option<Rank>)> {
        Some(match self {
            Self::Quit | Self::Odd(_) => return None,
            Self::Complete => (WorldEnd::Complete, String::new(), None),
            Self::Stopped => (WorldEnd::Stopped, String::new(), None),
            Self::Aborted(reason) => (WorldEnd::Failed, reason, None),
            Self::NotFormed(error) => (WorldEnd::Failed, error.to_string(), error.culprit()),
            Self::Failed(error) => (WorldEnd::Failed, error.to_string(), culprit(&error)),
        })
    }
}

/// What can fail in a step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    #[error(transparent)]
    Data(#[from] DataError),
}

/// The rank that a failed collective accuses.
fn culprit(error: &CollectiveError) -> Option<Rank> {
    match error {
        CollectiveError::PeerSilent { peer, .. } | CollectiveError::Connection { peer, .. } => {
            Some(Rank(peer.0))
        }
        CollectiveError::Diverged { .. }
        | CollectiveError::Aborted
        | CollectiveError::Refused { .. }
        | CollectiveError::Incomplete { .. }
        | CollectiveError::BadWorld(_)
        | CollectiveError::TooLarge { .. }
        | CollectiveError::Nccl { .. }
        | CollectiveError::Overdue { .. }
        | CollectiveError::Undrained { .. }
        | CollectiveError::Cuda { .. }
        | CollectiveError::Unusable(_)
        | CollectiveError::System { .. } => None,
    }
}
