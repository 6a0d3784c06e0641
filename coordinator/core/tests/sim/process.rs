//! One worker process: what its session and its trainer would do.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_proto::ids::{Digest, Generation, Rank, Slot, Step, WorkerUid};
use lockstep_proto::limits::COMMUNICATOR_ID_BYTES;
use lockstep_proto::{
    Activity, Backend, CheckpointWritten, CommunicatorId, CommunicatorIds, CoordinatorMessage,
    Goodbye, Heartbeat, Hello, Membership, PlanWindow, StepPlan, StepReport, TrainingState,
    WorkerMessage, World, WorldEnd, WorldEnded,
};

use super::dice::Dice;
use super::meeting::{Held, Meeting, is_finite};
use crate::support::{enlist_with, hello, report, reports};

/// Digests are taken behind every so many steps.
const DIGEST_EVERY: u64 = 5;

/// A process, from its start to its end.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) uid: String,
    /// The place that it wants, where it has one.
    slot: Option<Slot>,
    backend: Backend,
    /// The stream to the coordinator, and whether it was welcomed there.
    pub(crate) stream: Option<(u64, bool)>,
    pub(crate) held: Option<Held>,
    /// What it has just written to disk.
    pub(crate) saved: Option<Held>,
    pub(crate) world: Option<Part>,
    ended: Generation,
    stop: Option<Generation>,
    pub(crate) leaving: bool,
    /// Its trainer is stuck until then; the rest of it lives.
    pub(crate) stuck_until: Duration,
    /// Nothing of it moves until then.
    pub(crate) frozen_until: Duration,
    /// What it has to say once it may.
    pub(crate) words: Vec<WorkerMessage>,
    /// It ends; another will be started in its place.
    pub(crate) over: bool,
}

/// Its part in a world.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) generation: Generation,
    pub(crate) rank: Rank,
    total: u64,
    /// Where the ranks meet; of rank 0, what it has made.
    communicators: Option<CommunicatorIds>,
    place: Place,
    plans: BTreeMap<u64, StepPlan>,
    /// First step without a plan.
    pub(crate) planned: u64,
    sequence: u64,
    arrived: bool,
    saving_until: Duration,
    /// Whether it has begun to save the last state.
    last_save: bool,
    proven: Option<TrainingState>,
}

/// How far it is on its way to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It does not know where they meet.
    Outside,
    /// It may go there.
    OnItsWay,
    Joined,
}

impl Process {
    pub(crate) fn new(
        (uid, slot): (String, Option<Slot>),
        backend: Backend,
        held: Option<Held>,
    ) -> Self {
        Self {
            uid,
            slot,
            backend,
            stream: None,
            held,
            saved: None,
            world: None,
            ended: Generation(0),
            stop: None,
            leaving: false,
            stuck_until: Duration::ZERO,
            frozen_until: Duration::ZERO,
            words: Vec::new(),
            over: false,
        }
    }

    pub(crate) fn is_in(&self, generation: Generation) -> bool {
        self.world.as_ref().is_some_and(|part| part.generation == generation)
    }

    /// Whether it may yet hear of that world.
    pub(crate) fn may_enter(&self, generation: Generation) -> bool {
        self.world.is_none() && self.ended < generation && self.stream.is_some()
    }

    pub(crate) fn hello(&self) -> Hello {
        let step = Step(self.held.map_or(0, |held| held.step));
        let member = self.world.as_ref().map(|part| Membership {
            generation: part.generation,
            rank: part.rank,
            step,
            proven: part.proven,
        });
        Hello { slot: self.slot, member, worker: WorkerUid(self.uid.clone()), ..hello("") }
    }

    pub(crate) fn heartbeat(&self, now: Duration) -> Heartbeat {
        let (generation, collective_sequence) =
            self.world.as_ref().map_or((Generation(0), 0), |part| (part.generation, part.sequence));
        let step = Step(self.held.map_or(0, |held| held.step));
        let activity = self.world.as_ref().map(|part| {
            if part.saving_until > now {
                Activity::Saving
            } else if part.place < Place::Joined {
                Activity::Joining
            } else if part.plans.contains_key(&step.0) {
                Activity::Stepping
            } else {
                Activity::AwaitingPlan
            }
        });
        Heartbeat { generation, step, collective_sequence, activity }
    }

    /// The coordinator has said something.
    pub(crate) fn hear(&mut self, message: CoordinatorMessage) {
        match message {
            CoordinatorMessage::Welcome(welcome) => {
                self.stream = self.stream.map(|(stream, _)| (stream, true));
                match &self.world {
                    Some(part) if welcome.member_of == Some(part.generation) => {
                        let ids = part.communicators.clone().filter(|_| part.rank == Rank(0));
                        self.words.extend(ids.map(WorkerMessage::CommunicatorIds));
                    }
                    Some(_) => self.leave_world(WorldEnd::Failed, None),
                    None => self.enlist(),
                }
            }
            CoordinatorMessage::World(world) => self.enter(&world),
            CoordinatorMessage::Plan(window) => self.plan(window),
            CoordinatorMessage::CommunicatorIds(ids) => self.meet(&ids),
            CoordinatorMessage::Abort(abort) => {
                if self.is_in(abort.generation) {
                    self.leave_world(WorldEnd::Failed, None);
                }
            }
            CoordinatorMessage::Stop(stop) => self.stop = Some(stop.generation),
            CoordinatorMessage::Save(generation) => {
                if self.is_in(generation) {
                    self.save();
                }
            }
            CoordinatorMessage::Dump(_) | CoordinatorMessage::Dismiss(_) => self.over = true,
        }
    }

    fn enter(&mut self, world: &World) {
        assert!(self.world.is_none(), "{}: a world inside a world", self.uid);
        let alone = self.backend == Backend::Host || world.members.len() == 1;
        let makes_ids = !alone && world.rank == Rank(0);
        let communicators = makes_ids.then(|| made_of(&self.uid, world.generation));
        self.words.extend(communicators.clone().map(WorkerMessage::CommunicatorIds));
        self.world = Some(Part {
            generation: world.generation,
            rank: world.rank,
            total: world.total_steps,
            communicators,
            place: if alone { Place::OnItsWay } else { Place::Outside },
            plans: BTreeMap::new(),
            planned: world.start.step.0,
            sequence: 0,
            arrived: false,
            saving_until: Duration::ZERO,
            last_save: false,
            proven: None,
        });
    }

    fn meet(&mut self, ids: &CommunicatorIds) {
        let Some(part) = self.world.as_mut().filter(|part| part.generation == ids.generation)
        else {
            return;
        };
        let known = part.communicators.get_or_insert_with(|| ids.clone());
        assert_eq!(known, ids, "{}: the ranks would meet at two places", self.uid);
        part.place = part.place.max(Place::OnItsWay);
    }

    fn plan(&mut self, window: PlanWindow) {
        // One that has left the world meanwhile drops what crossed on the wire.
        let Some(part) = self.world.as_mut().filter(|part| part.generation == window.generation)
        else {
            return;
        };
        assert!(window.steps[0].step.0 <= part.planned, "{}: a gap in the plan", self.uid);
        for plan in window.steps {
            part.planned = part.planned.max(plan.step.0 + 1);
            part.plans.insert(plan.step.0, plan);
        }
    }

    fn enlist(&mut self) {
        let state = self.held.map(Held::state);
        self.words.push(enlist_with(self.backend, self.ended.0, state));
    }

    pub(crate) fn leave_world(&mut self, reason: WorldEnd, culprit: Option<Rank>) {
        let Some(part) = self.world.take() else { return };
        self.ended = part.generation;
        let detail = String::new();
        let ended = WorldEnded { generation: part.generation, reason, detail, culprit };
        self.words.push(WorkerMessage::WorldEnded(ended));
        if self.leaving {
            self.words.push(WorkerMessage::Goodbye(Goodbye { reason: "asked to".into() }));
            self.over = true;
        } else {
            self.enlist();
        }
    }

    fn save(&mut self) {
        let (Some(part), Some(held)) = (&self.world, self.held) else { return };
        let (generation, path) = (part.generation, String::new());
        let written = CheckpointWritten { generation, state: held.state(), path };
        self.words.push(WorkerMessage::CheckpointWritten(written));
        self.saved = Some(held);
    }

    /// The trainer goes on by as much as it can. True when it has applied a batch.
    pub(crate) fn work(&mut self, meeting: &mut Meeting, now: Duration, dice: &mut Dice) -> bool {
        let Some(part) = &mut self.world else { return false };
        if part.saving_until > now {
            return false;
        }
        if part.place == Place::Outside {
            return false;
        }
        if part.place < Place::Joined {
            part.sequence = 1;
            if let Some(held) = meeting.join(part.rank, self.held) {
                self.held = Some(held);
                part.place = Place::Joined;
            }
            return false;
        }
        let held = self.held.expect("it has taken over the state");
        if held.step == part.total {
            self.complete(now, dice);
            return false;
        }
        let Some(plan) = part.plans.get(&held.step).copied() else { return false };
        if !part.arrived {
            part.arrived = true;
            part.sequence += 2;
            let stop = self.leaving || self.stop == Some(part.generation);
            meeting.arrive(part.rank, held, plan, stop);
        }
        let Some(stop) = meeting.outcome(held.cursor) else { return false };
        self.finish(held, &plan, stop, now, dice);
        true
    }

    /// Rank 0 takes its time to save the last state.
    fn complete(&mut self, now: Duration, dice: &mut Dice) {
        let part = self.world.as_mut().expect("it was in a world");
        if part.rank == Rank(0) && !part.last_save {
            part.last_save = true;
            part.saving_until = now + dice.ms(0, 3000);
            return;
        }
        if part.rank == Rank(0) {
            self.save();
        }
        self.leave_world(WorldEnd::Complete, None);
    }

    fn finish(&mut self, held: Held, plan: &StepPlan, stop: bool, now: Duration, dice: &mut Dice) {
        let after = held.next(plan);
        self.held = Some(after);
        let part = self.world.as_mut().expect("it was in a world");
        part.arrived = false;
        let applied = is_finite(held.cursor);
        let digest = (applied && after.step.is_multiple_of(DIGEST_EVERY)).then(|| {
            part.proven = Some(after.state());
            Digest(after.chain)
        });
        let cursor = lockstep_proto::ids::Cursor(held.cursor);
        let arrival_wait = Some(Duration::from_micros(dice.below(1000)));
        let done = StepReport { cursor, applied, digest, arrival_wait, ..report(held.step) };
        let (generation, rank, total) = (part.generation, part.rank, part.total);
        self.words.push(reports(generation.0, vec![done]));
        let leads = rank == Rank(0);
        if stop {
            if leads {
                self.save();
            }
            return self.leave_world(WorldEnd::Stopped, None);
        }
        if applied && plan.regroup {
            return self.leave_world(WorldEnd::Stopped, None);
        }
        if applied && plan.checkpoint && leads && after.step < total {
            self.save();
            if dice.one_in(4) {
                let part = self.world.as_mut().expect("it is still in it");
                part.saving_until = now + dice.ms(0, 8000);
            }
        }
    }
}

/// Ids that no other process makes, and that this one makes for no other world.
fn made_of(uid: &str, generation: Generation) -> CommunicatorIds {
    let id = |channel: u8| {
        let mut bytes = [channel; COMMUNICATOR_ID_BYTES];
        bytes[..8].copy_from_slice(&generation.0.to_le_bytes());
        bytes[8..][..uid.len()].copy_from_slice(uid.as_bytes());
        CommunicatorId(bytes)
    };
    CommunicatorIds { generation, statistics: id(0), gradients: id(1) }
}
