//! Who is here: sessions by slot, and when each was last heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lockstep_proto::ids::{Generation, Rank, Slot, Step, WorkerUid};
use lockstep_proto::limits::MAX_MEMBERS;
use lockstep_proto::{Enlist, Hello, StepReport};

use crate::cooldown::PlaceName;
use crate::event::SessionId;

/// Slots that workers may have; those that find no place in the world are spares.
#[expect(clippy::cast_possible_truncation, reason = "a few thousand")]
pub(crate) const MAX_SLOTS: u32 = MAX_MEMBERS as u32;

/// One worker with a stream.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) worker: WorkerUid,
    pub(crate) slot: Slot,
    pub(crate) host: String,
    pub(crate) device: String,
    pub(crate) version: String,
    pub(crate) last_heard: Duration,
    pub(crate) standing: Standing,
    /// Newest generation that this worker has ended or was told to abort.
    pub(crate) over: Generation,
    /// Step in flight, from the last heartbeat or report.
    pub(crate) step: Step,
    pub(crate) pace: Pace,
}

/// What a worker is doing, as far as the coordinator knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// It was welcomed, or is coming back from a world.
    Idle,
    /// It waits for a world.
    Enlisted(Enlist),
    /// It is a member of the present world and has not ended it.
    Member(Rank),
}

/// Speed of one worker in its newest step.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) images_per_second: f64,
    pub(crate) data_wait_ratio: f64,
}

impl Pace {
    pub(crate) fn of(report: &StepReport) -> Self {
        let seconds = report.duration.as_secs_f64();
        if seconds <= 0.0 {
            return Self::default();
        }
        Self {
            images_per_second: f64::from(report.images) / seconds,
            data_wait_ratio: (report.data_wait.as_secs_f64() / seconds).min(1.0),
        }
    }
}

impl Session {
    pub(crate) fn new(hello: Hello, slot: Slot, now: Duration) -> Self {
        Self {
            worker: hello.worker,
            slot,
            host: hello.host,
            device: hello.device,
            version: hello.version,
            last_heard: now,
            standing: Standing::Idle,
            over: Generation(0),
            step: Step(0),
            pace: Pace::default(),
        }
    }

    /// What stays the same when its process is started anew.
    pub(crate) fn place(&self) -> PlaceName {
        (self.host.clone(), self.slot)
    }

    /// Its rank in the present world, until it has ended it.
    pub(crate) fn rank(&self) -> Option<Rank> {
        match self.standing {
            Standing::Member(rank) => Some(rank),
            Standing::Idle | Standing::Enlisted(_) => None,
        }
    }

    /// What it waits for a world with.
    pub(crate) fn enlisted(&self) -> Option<&Enlist> {
        match &self.standing {
            Standing::Enlisted(enlist) => Some(enlist),
            Standing::Idle | Standing::Member(_) => None,
        }
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    sessions: BTreeMap<SessionId, Session>,
    by_slot: BTreeMap<Slot, SessionId>,
}

impl Roster {
    /// Adds a session whose slot is free.
    pub(crate) fn insert(&mut self, id: SessionId, session: Session) {
        let before = self.by_slot.insert(session.slot, id);
        assert_eq!(before, None, "slot {} was not free", session.slot.0);
        self.sessions.insert(id, session);
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.by_slot.remove(&session.slot);
        Some(session)
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions in slot order.
    pub(crate) fn by_slot(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_slot.values().map(|id| (*id, &self.sessions[id]))
    }

    pub(crate) fn holder(&self, slot: Slot) -> Option<SessionId> {
        self.by_slot.get(&slot).copied()
    }

    pub(crate) fn find(&self, worker: &WorkerUid) -> Option<(SessionId, Slot)> {
        let mut sessions = self.sessions.iter();
        sessions.find(|(_, s)| s.worker == *worker).map(|(id, session)| (*id, session.slot))
    }

    /// The lowest slot that nobody holds, and that is not reserved.
    pub(crate) fn free_slot(&self, reserved: &BTreeSet<Slot>) -> Option<Slot> {
        let taken = |slot: &Slot| self.by_slot.contains_key(slot) || reserved.contains(slot);
        (0..MAX_SLOTS).map(Slot).find(|slot| !taken(slot))
    }

    /// Sessions that were silent for longer than `lease`.
    pub(crate) fn silent(&self, now: Duration, lease: Duration) -> Vec<SessionId> {
        let silent = |session: &Session| now.saturating_sub(session.last_heard) > lease;
        self.sessions.iter().filter(|(_, s)| silent(s)).map(|(id, _)| *id).collect()
    }

    /// Ids of everyone.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// Members of the present world that have not ended it.
    pub(crate) fn members(&self) -> Vec<(SessionId, Rank)> {
        self.sessions.iter().filter_map(|(id, s)| Some((*id, s.rank()?))).collect()
    }
}
