//! What can go wrong in a collective, and what the trainer should do about it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{NcclFailure, Rank};

/// Of the handshake and of the operation header.
pub(crate) const VERSION: u32 = 1;

/// A collective did not complete. Messages name the peer, the operation and the remedy.
///
/// Cloneable, since one failure ends every operation that was pending.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CollectiveError {
    /// A peer went silent; the usual sign of a stopped worker or a cut network.
    #[error(
        "no data from rank {peer} for {waited:?} in {op}; \
         the coordinator will re-form the world, or raise the operation deadline"
    )]
    PeerSilent {
        /// The rank we were waiting for.
        peer: Rank,
        /// The operation, with its number.
        op: String,
        /// How long we waited since the last byte.
        waited: Duration,
    },

    /// Two ranks issued different operations; results would be garbage.
    #[error(
        "ranks diverged: rank {peer} issued {theirs}, we issued {ours}; this is a bug, stop the run"
    )]
    Diverged {
        /// The rank that disagrees with us.
        peer: Rank,
        /// What we are executing.
        ours: String,
        /// What the peer is executing.
        theirs: String,
    },

    /// The socket failed, or the peer closed it: it died, or it gave up on this world.
    #[error("lost the connection to rank {peer} in {op}; the coordinator will re-form the world")]
    Connection {
        /// The rank at the other end.
        peer: Rank,
        /// The operation, with its number.
        op: String,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },

    /// Somebody used the [`AbortHandle`](crate::AbortHandle).
    #[error("the collective was aborted; ask the coordinator for the next world")]
    Aborted,

    /// A peer would not have us in its world.
    #[error("rank {peer} at {address} refused us: {refusal}")]
    Refused {
        /// The rank we dialled.
        peer: Rank,
        /// Where.
        address: SocketAddr,
        /// Why.
        refusal: Refusal,
    },

    /// Not every rank arrived in time.
    #[error(
        "no complete world after {waited:?}: no connection with rank {}; \
         check that those workers run and that their addresses can be reached{}",
        list(.missing), seen(.troubles)
    )]
    Incomplete {
        /// The ranks without all their connections.
        missing: Vec<Rank>,
        /// How long we waited.
        waited: Duration,
        /// The last connections that we refused and dials that failed, each with the reason.
        troubles: Vec<String>,
    },

    /// The description of the world contradicts itself.
    #[error("bad world description: {0}")]
    BadWorld(String),

    /// More bytes than an all-gather takes.
    #[error(
        "all-gather of {len} bytes by rank {rank}; the limit is {limit}: send digests, not data"
    )]
    TooLarge {
        /// Who wants to send them.
        rank: Rank,
        /// How many.
        len: u64,
        /// How many are allowed.
        limit: usize,
    },

    /// NCCL reported an error.
    #[error("{failure} in {op}; {}", after(.failure.recovery()))]
    Nccl {
        /// The operation, with its number.
        op: String,
        /// What NCCL said.
        failure: NcclFailure,
    },

    /// An operation between GPUs was not over in time. NCCL does not tell who is missing.
    #[error(
        "{op} was not over after {waited:?}: a rank is dead or stuck, or issued another operation; \
         the coordinator will re-form the world, or raise the operation deadline"
    )]
    Overdue {
        /// The operation, with its number.
        op: String,
        /// How long we waited for it.
        waited: Duration,
    },

    /// The device holds on to an operation that was aborted: its memory can't be used again.
    #[error(
        "{op} did not end within {waited:?} of its abort; this process must exit with 75, to be \
         started again with a clean device"
    )]
    Undrained {
        /// What was aborted.
        op: String,
        /// How long we waited for its end.
        waited: Duration,
    },

    /// The CUDA driver refused a call. Its errors stay with the process.
    #[error(
        "CUDA's {call} failed in {op}: {reason}; this process must exit with 75, to be started \
         again with a clean device"
    )]
    Cuda {
        /// The operation, with its number.
        op: String,
        /// Name of the driver's function.
        call: &'static str,
        /// The driver's words, with its code.
        reason: String,
    },

    /// NCCL or the CUDA driver can't be used here at all.
    #[error("cannot use NCCL: {0}")]
    Unusable(String),

    /// The operating system refused something.
    #[error("can't {what}")]
    System {
        /// What was tried, as a verb phrase.
        what: String,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why one side of a connection refuses the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another build.
    #[error(
        "it speaks version {theirs} of the handshake, we speak {VERSION}; run one build everywhere"
    )]
    Version {
        /// The refusing side's version.
        theirs: u32,
    },
    /// Another training run.
    #[error("it belongs to another run; check the coordinator address of both workers")]
    Run,
    /// Another generation of the same run.
    #[error("it is in generation {theirs}, not in ours; ask the coordinator for the current world")]
    Generation {
        /// The refusing side's generation.
        theirs: u64,
    },
    /// Another number of ranks or channels, or a rank that is not there.
    #[error("its world has other ranks or channels; both must get the same world description")]
    Place,
    /// One side can't prove that it knows the generation's secret.
    #[error("the secrets differ; only workers that the coordinator admitted may connect")]
    Secret,
}

impl Refusal {
    /// The same from the refusing side, for its log.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Version { .. } => "another version of the handshake",
            Self::Run => "another run",
            Self::Generation { .. } => "another generation",
            Self::Place => "a world of other ranks or channels",
            Self::Secret => "wrong secret",
        }
    }
}

/// What a caller does with a failed collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Drop this step's gradients and ask the coordinator for a new world.
    Rejoin,
    /// End the process with exit code 75, so that whoever started it starts it again: the device
    /// is in no state to go on with.
    Restart,
    /// Stop the process; a human must look.
    Abort,
}

impl CollectiveError {
    /// Callers branch on this, never on the message.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::PeerSilent { .. }
            | Self::Connection { .. }
            | Self::Aborted
            | Self::Incomplete { .. }
            | Self::Overdue { .. }
            | Self::Refused { refusal: Refusal::Generation { .. }, .. } => Recovery::Rejoin,
            Self::Nccl { failure, .. } => failure.recovery(),
            Self::Undrained { .. } | Self::Cuda { .. } => Recovery::Restart,
            Self::Diverged { .. }
            | Self::Refused { .. }
            | Self::BadWorld(_)
            | Self::TooLarge { .. }
            | Self::Unusable(_)
            | Self::System { .. } => Recovery::Abort,
        }
    }

    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: Arc::new(source.into()) }
    }
}

fn after(recovery: Recovery) -> &'static str {
    match recovery {
        Recovery::Rejoin => "the coordinator will re-form the world",
        Recovery::Restart => "this process must exit with 75, to be started again",
        Recovery::Abort => "this is a bug, stop the run",
    }
}

fn list(ranks: &[Rank]) -> String {
    ranks.iter().map(Rank::to_string).collect::<Vec<_>>().join(", ")
}

fn seen(troubles: &[String]) -> String {
    if troubles.is_empty() { String::new() } else { format!(" (seen: {})", troubles.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_makes_the_worker_rejoin_rather_than_abort() {
        let error = CollectiveError::PeerSilent {
            peer: Rank(3),
            op: "all-reduce 7".into(),
            waited: Duration::from_secs(5),
        };
        assert_eq!(error.recovery(), Recovery::Rejoin);
        assert!(error.to_string().starts_with("no data from rank 3 for 5s in all-reduce 7"));
    }

    #[test]
    fn an_incomplete_world_names_the_missing_ranks_and_what_was_seen() {
        let error = CollectiveError::Incomplete {
            missing: vec![Rank(1), Rank(4)],
            waited: Duration::from_secs(10),
            troubles: vec!["10.0.0.9:1234: wrong magic".into()],
        };
        let text = error.to_string();
        assert!(text.contains("rank 1, 4;"), "{text}");
        assert!(text.ends_with("(seen: 10.0.0.9:1234: wrong magic)"), "{text}");
    }
}
