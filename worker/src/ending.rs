//! How worlds end, and what makes a trainer give up.

use lockstep_collective::CollectiveError;
use lockstep_data::DataError;
use lockstep_proto::WorldEnd;
use lockstep_proto::ids::Rank;

use crate::checkpoint::CheckpointError;

/// Why the trainer gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrainerError {
    #[error("cannot use the checkpoints")]
    Checkpoint(#[from] CheckpointError),
    #[error("the coordinator's configuration changed during the run: {0}; start the worker again")]
    ConfigChanged(String),
    #[error(
        "a world of several ranks needs collectives between GPUs, which this version does not have; \
         start the workers with --device cpu, or train in a world of one"
    )]
    NoGpuCollectives,
    #[error("cannot read training data")]
    Data(#[from] DataError),
    #[error(
        "ranks {0:?} hold another state than the source after the broadcast; this is a bug or broken memory"
    )]
    StateDiffers(Vec<lockstep_collective::Rank>),
}

/// How a world ended.
pub(crate) enum Ended {
    Complete,
    Stopped,
    Aborted(String),
    Failed(CollectiveError),
    Quit,
}

impl Ended {
    /// Reason, detail and culprit as the coordinator hears them; `None` when it is not told, because
    /// this process ends.
    pub(crate) fn for_the_coordinator(self) -> Option<(WorldEnd, String, Option<Rank>)> {
        Some(match self {
            Self::Quit => return None,
            Self::Complete => (WorldEnd::Complete, String::new(), None),
            Self::Stopped => (WorldEnd::Stopped, String::new(), None),
            Self::Aborted(reason) => (WorldEnd::Failed, reason, None),
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
        | CollectiveError::System { .. } => None,
    }
}
