//! What may go wrong.

use std::fmt;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A worker is killed (SIGKILL) and started again.
    WorkerKilled,
    /// A worker is asked to leave (SIGTERM) and started again.
    WorkerLeaves,
    /// A worker's process stands still for longer than its lease (SIGSTOP, SIGCONT).
    WorkerFrozen,
    /// A worker's training thread stands still for longer than the progress lease, while its heartbeats go on.
    WorkerStuck,
    /// The coordinator is killed (SIGKILL) and started again at once.
    CoordinatorKilled,
    /// Nothing passes between a worker and the coordinator for longer than the lease.
    CoordinatorCutOff,
    /// Nothing passes between a worker and its peers for longer than a collective waits.
    PeersCutOff,
    /// Everything between a worker and the others takes longer for a while.
    NetworkSlow,
    /// Nothing can be written to disk while a checkpoint is due.
    DiskFull,
    /// The wall clock of a worker jumps by an hour, back or forth.
    ClockJumps,
    /// A bit of a worker's state flips.
    BitFlips,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::WorkerKilled,
        Self::WorkerLeaves,
        Self::WorkerFrozen,
        Self::WorkerStuck,
        Self::CoordinatorKilled,
        Self::CoordinatorCutOff,
        Self::PeersCutOff,
        Self::NetworkSlow,
        Self::DiskFull,
        Self::ClockJumps,
        Self::BitFlips,
    ];

    /// Whether the present world must end because of it.
    pub fn breaks_the_world(self) -> bool {
        match self {
            Self::WorkerKilled
            | Self::WorkerFrozen
            | Self::WorkerStuck
            | Self::WorkerLeaves
            | Self::PeersCutOff
            | Self::BitFlips => true,
            Self::CoordinatorKilled
            | Self::CoordinatorCutOff
            | Self::NetworkSlow
            | Self::DiskFull
            | Self::ClockJumps => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WorkerKilled => "worker killed",
            Self::WorkerLeaves => "worker asked to leave",
            Self::WorkerFrozen => "worker frozen",
            Self::WorkerStuck => "worker stuck",
            Self::CoordinatorKilled => "coordinator killed",
            Self::CoordinatorCutOff => "coordinator cut off",
            Self::PeersCutOff => "peers cut off",
            Self::NetworkSlow => "network slow",
            Self::DiskFull => "disk full",
            Self::ClockJumps => "clock jumps",
            Self::BitFlips => "bit flips",
        })
    }
}
