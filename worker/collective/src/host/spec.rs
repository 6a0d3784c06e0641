//! The description of a world, as the coordinator hands it to each rank.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::{CollectiveError, Rank};

/// Most ranks in a world: a mesh of sockets beyond this wants another topology.
const MAX_WORLD: usize = 1024;
/// Most channels between two ranks.
const MAX_CHANNELS: u32 = 16;

/// What a rank must know to take its place in a world.
#[derive(Debug, Clone)]
pub struct WorldSpec {
    /// The training run, so that workers of two runs can't mix.
    pub run_id: String,
    /// Number of this world; every attempt to form one has a new number.
    pub generation: u64,
    /// Our place.
    pub rank: Rank,
    /// Where each rank's listener can be reached, by rank; ours included.
    pub peers: Vec<SocketAddr>,
    /// Known to the ranks of this generation only.
    pub secret: Secret,
    /// Longest wait for all ranks to arrive.
    pub connect_deadline: Duration,
    /// Longest silence of a peer inside an operation.
    pub op_deadline: Duration,
    /// Independent communicators between the same ranks, so that a large bucket on one does not
    /// delay a small message on another.
    pub channels: u32,
}

impl WorldSpec {
    /// Number of ranks.
    pub(super) fn world(&self) -> u32 {
        u32::try_from(self.peers.len()).expect("`check` bounds the world")
    }

    /// Refuses a description that contradicts itself.
    pub(super) fn check(&self) -> Result<(), CollectiveError> {
        let (rank, world, channels) = (self.rank, self.peers.len(), self.channels);
        let fault = if world == 0 || world > MAX_WORLD {
            format!("{world} ranks; 1 to {MAX_WORLD} can form a world")
        } else if rank.index() >= world {
            format!("rank {rank} in a world of {world}; ranks count from 0")
        } else if channels == 0 || channels > MAX_CHANNELS {
            format!("{channels} channels; 1 to {MAX_CHANNELS} are possible")
        } else {
            return Ok(());
        };
        Err(CollectiveError::BadWorld(fault))
    }
}

/// Key of the handshake. Never printed, and never sent: ranks prove that they know it.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Secret {
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}
