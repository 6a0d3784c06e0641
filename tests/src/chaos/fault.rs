//! What may go wrong.

use std::fmt;
use std::time::Duration;

use super::arena::{Arena, Disk};
use super::proxy::Network;

/// Longer than the lease, the progress lease and the patience of a collective.
const LONG: Duration = Duration::from_millis(3500);
/// How long a fault that nobody should mind lasts.
const SHORT: Duration = Duration::from_millis(1500);
/// What a slow network adds to every piece.
const DELAY: Duration = Duration::from_millis(2);
/// How far a clock jumps, in seconds.
const HOUR: i64 = 3600;

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
    /// Nothing can be written to the coordinator's store.
    StoreFull,
    /// The wall clock of a worker jumps by an hour, back or forth.
    ClockJumps,
    /// A bit of a worker's state flips.
    BitFlips,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::WorkerKilled,
        Self::WorkerLeaves,
        Self::WorkerFrozen,
        Self::WorkerStuck,
        Self::CoordinatorKilled,
        Self::CoordinatorCutOff,
        Self::PeersCutOff,
        Self::NetworkSlow,
        Self::DiskFull,
        Self::StoreFull,
        Self::ClockJumps,
        Self::BitFlips,
    ];

    /// Those that are over at once and may strike while another is recovered from.
    pub(super) const SUDDEN: [Self; 3] =
        [Self::WorkerKilled, Self::WorkerLeaves, Self::CoordinatorKilled];

    /// Whether another fault may strike before it is made good. A state with a flipped bit that no rank has compared yet may
    /// be the newest when the world breaks, and then nobody can tell; and a world that breaks may not come to write the
    /// checkpoint for which there is no room.
    pub(super) fn may_be_joined(self) -> bool {
        !matches!(self, Self::BitFlips | Self::DiskFull)
    }

    /// Whether the present world must end because of it.
    pub fn breaks_the_world(self) -> bool {
        match self {
            Self::WorkerKilled
            | Self::WorkerFrozen
            | Self::WorkerStuck
            | Self::WorkerLeaves
            | Self::PeersCutOff
            | Self::CoordinatorCutOff
            | Self::BitFlips => true,
            Self::CoordinatorKilled
            | Self::NetworkSlow
            | Self::DiskFull
            | Self::StoreFull
            | Self::ClockJumps => false,
        }
    }
}

/// Which members of a world a fault can concern, in the order of their ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Anybody,
    /// The rank that writes checkpoints.
    First,
    /// A rank that others dial: higher ones dial lower ones.
    NotTheLast,
}

impl Fault {
    pub(super) fn strikes(self) -> Victim {
        match self {
            Self::DiskFull => Victim::First,
            Self::PeersCutOff => Victim::NotTheLast,
            Self::WorkerKilled
            | Self::WorkerLeaves
            | Self::WorkerFrozen
            | Self::WorkerStuck
            | Self::CoordinatorKilled
            | Self::CoordinatorCutOff
            | Self::NetworkSlow
            | Self::StoreFull
            | Self::ClockJumps
            | Self::BitFlips => Victim::Anybody,
        }
    }

    pub(super) fn begin(self, arena: &Arena, slot: usize) {
        let slow = Network::Slow(DELAY);
        match self {
            Self::WorkerKilled => arena.signal(slot, "KILL"),
            Self::WorkerLeaves => arena.signal(slot, "TERM"),
            Self::WorkerFrozen => arena.signal(slot, "STOP"),
            Self::WorkerStuck => arena.failpoint(slot, "stall", &LONG.as_millis().to_string()),
            Self::CoordinatorKilled => arena.signal_coordinator("KILL"),
            Self::CoordinatorCutOff => arena.network(slot, Network::Cut, Network::Fine),
            Self::PeersCutOff => arena.network(slot, Network::Fine, Network::Cut),
            Self::NetworkSlow => arena.network(slot, slow, slow),
            Self::DiskFull => {
                arena.machine(slot, 0, Disk::Full);
                arena.operate(&["checkpoint"]);
            }
            Self::StoreFull => {
                arena.store(Disk::Full);
                arena.operate(&["checkpoint"]);
            }
            Self::ClockJumps if slot.is_multiple_of(2) => arena.machine(slot, HOUR, Disk::Fine),
            Self::ClockJumps => arena.machine(slot, -HOUR, Disk::Fine),
            Self::BitFlips => arena.failpoint(slot, "flip", "online_running"),
        }
    }

    /// How long it lasts.
    pub(super) fn lasts(self) -> Duration {
        match self {
            Self::WorkerFrozen
            | Self::WorkerStuck
            | Self::CoordinatorCutOff
            | Self::PeersCutOff => LONG,
            Self::NetworkSlow | Self::DiskFull | Self::StoreFull | Self::ClockJumps => SHORT,
            Self::WorkerKilled | Self::WorkerLeaves | Self::CoordinatorKilled | Self::BitFlips => {
                Duration::ZERO
            }
        }
    }

    /// Makes it good, where it does not end by itself.
    pub(super) fn end(self, arena: &Arena, slot: usize) {
        match self {
            Self::WorkerFrozen => arena.signal(slot, "CONT"),
            Self::CoordinatorCutOff | Self::PeersCutOff | Self::NetworkSlow => {
                arena.network(slot, Network::Fine, Network::Fine);
            }
            Self::DiskFull | Self::ClockJumps => arena.machine(slot, 0, Disk::Fine),
            Self::StoreFull => arena.store(Disk::Fine),
            Self::WorkerKilled
            | Self::WorkerLeaves
            | Self::WorkerStuck
            | Self::CoordinatorKilled
            | Self::BitFlips => {}
        }
    }

    /// Whether the logs of the worker and of the coordinator tell people what they must know.
    pub(super) fn left_its_trace(self, worker: &str, coordinator: &str) -> bool {
        match self {
            Self::StoreFull => coordinator.contains("No space left on device"),
            Self::DiskFull => worker.contains("No space left on device"),
            Self::BitFlips => worker.contains("the odd state is written"),
            Self::WorkerKilled
            | Self::WorkerLeaves
            | Self::WorkerFrozen
            | Self::WorkerStuck
            | Self::CoordinatorKilled
            | Self::CoordinatorCutOff
            | Self::PeersCutOff
            | Self::NetworkSlow
            | Self::ClockJumps => true,
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
            Self::StoreFull => "coordinator's disk full",
            Self::ClockJumps => "clock jumps",
            Self::BitFlips => "bit flips",
        })
    }
}
