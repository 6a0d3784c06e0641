//! The operations a world of ranks performs together.

use std::fmt;

use crate::{AbortHandle, CollectiveError, Region, Values};

/// Position of a worker in the current world, `0..world_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Rank {
    /// As an index into lists kept by rank.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How the ranks' elements become one, always in rank order; with NCCL, in an order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// `((r₀ + r₁) + r₂) + …`.
    Sum,
    /// The largest; a NaN on any rank wins, so that it can't hide. NCCL may drop it.
    Max,
}

/// An operation under way; give it to [`Collective::wait`].
#[derive(Debug)]
#[must_use = "the region stays lent until `wait` returns"]
pub struct Pending {
    sequence: u64,
}

impl Pending {
    /// The operation with this number, as counted by [`Collective::sequence`] when it was issued.
    pub fn new(sequence: u64) -> Self {
        Self { sequence }
    }

    /// Its number, from 1.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// One rank's end of a communicator.
///
/// Every rank calls the same operations in the same order, or all of them end with
/// [`CollectiveError::Diverged`]; with NCCL, which can't tell, after the deadline with
/// [`CollectiveError::Overdue`]. After an error the contents of a lent buffer are unspecified and
/// every later call returns the same error; the way on is a new world.
pub trait Collective: Send {
    /// This rank.
    fn rank(&self) -> Rank;

    /// Number of ranks.
    fn world(&self) -> u32;

    /// Starts to reduce `region` in place on all ranks, and returns at once.
    /// Operations run one after the other, in the order they were issued.
    fn start_all_reduce(
        &mut self,
        region: Region,
        reduction: Reduction,
    ) -> Result<Pending, CollectiveError>;

    /// Waits until an operation, and all before it, are over. Bounded by the communicator's
    /// deadline; whatever it returns, the operation's region is the caller's again.
    fn wait(&mut self, pending: Pending) -> Result<(), CollectiveError>;

    /// Reduces `region` in place on all ranks, in order with what else is queued on its device: whatever is queued there
    /// after the call sees the result. A backend whose operations run on the device need not wait for that, so what is
    /// returned must be waited for before the host looks at anything on the device: only that wait has a deadline.
    fn all_reduce_in_order(
        &mut self,
        region: Region,
        reduction: Reduction,
    ) -> Result<Pending, CollectiveError> {
        let pending = self.start_all_reduce(region, reduction)?;
        let sequence = pending.sequence();
        self.wait(pending)?;
        Ok(Pending::new(sequence))
    }

    /// Reduces host numbers in place and waits: for small and frequent messages, such as
    /// batch-norm statistics.
    fn all_reduce(
        &mut self,
        values: Values<'_>,
        reduction: Reduction,
    ) -> Result<(), CollectiveError>;

    /// Copies `root`'s region over everybody's, and waits.
    fn broadcast(&mut self, region: Region, root: Rank) -> Result<(), CollectiveError>;

    /// Everybody's bytes, by rank; lengths may differ. For digests and other small things
    /// (at most [`MAX_GATHERED`](crate::MAX_GATHERED) bytes a rank).
    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Returns once every rank has called it.
    fn barrier(&mut self) -> Result<(), CollectiveError>;

    /// Operations issued so far: the progress that a heartbeat carries.
    fn sequence(&self) -> u64;

    /// A switch that ends every pending and later call with [`CollectiveError::Aborted`].
    fn abort_handle(&self) -> AbortHandle;
}
