//! A coordinator that was started again goes on with the world that it finds in its journal.
//!
//! The members have gone on meanwhile with the steps they had plans for. They come back one by one and say where they
//! are; once more than half are here, plans are sent again and the world has noticed nothing. Those that stay away for
//! too long count as lost.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Rank, Slot, WorkerUid};
use lockstep_proto::{CoordinatorMessage, Hello, Membership, Occurrence, PlanWindow, Stop};

use crate::core::{Core, State};
use crate::event::SessionId;
use crate::forming::Forming;
use crate::journal::{LastWorld, Memory, Planned, WorldRecord};
use crate::plan::RunPlan;
use crate::roster::Standing;
use crate::world::LiveWorld;

/// The plan of the run and its state as the journal tells them.
pub(crate) fn recall(config: &RunConfig, memory: Memory) -> (Option<RunPlan>, State) {
    let Some(LastWorld { record, planned, stopping, over }) = memory.last else {
        return (None, State::Forming(Forming::cold(None)));
    };
    // Where the configuration has changed too much, there is nothing to go on with.
    let plan = RunPlan::new(config, record.data.clone()).ok();
    if over || plan.is_none() {
        return (plan, State::Forming(Forming::cold(Some(&record))));
    }
    let mut world = outlived(record, planned, config);
    world.stopping = stopping;
    (plan, State::Running(Box::new(world)))
}

/// A world of which nobody has come back yet.
fn outlived(record: WorldRecord, planned: Planned, config: &RunConfig) -> LiveWorld {
    let control = &config.control;
    let mut world = LiveWorld::new(record, control.plan_window, Duration::ZERO);
    world.feed.next = planned.until;
    world.feed.closed = planned.regroup;
    world.newest = planned.step;
    world.missing = (0..world.size()).map(Rank).collect();
    world.missing_until = Duration::from_millis(control.readopt_ms.into());
    world
}

impl Core {
    /// The rank of a worker that comes back to the present world on a new stream.
    pub(crate) fn returning(&self, hello: &Hello, slot: Slot) -> Option<Rank> {
        let (world, member) = (self.live()?, hello.member?);
        let place = world.place(member.rank)?;
        let same = member.generation == world.generation()
            && (&place.worker, place.slot) == (&hello.worker, slot);
        let left = world.ends.contains_key(&member.rank);
        (same && !left).then_some(member.rank)
    }

    /// Slots of members that may come back.
    pub(crate) fn reserved(&self) -> BTreeMap<WorkerUid, Slot> {
        let Some(world) = self.live() else { return BTreeMap::new() };
        let missing = world.missing.iter().filter_map(|rank| world.place(*rank));
        missing.map(|place| (place.worker.clone(), place.slot)).collect()
    }

    /// Counts a member in again, and gives it all that it may have missed.
    pub(crate) fn take_back(&mut self, id: SessionId, member: Membership) {
        let Some(session) = self.roster.get_mut(id) else { return };
        session.standing = Standing::Member(member.rank);
        let (State::Running(world), Some(plan)) = (&mut self.state, &self.plan) else { return };
        world.moved = self.now;
        let was_carried = world.is_carried();
        world.missing.remove(&member.rank);
        let adopted = !was_carried && world.is_carried();
        let generation = world.generation();
        let steps = world.feed.sent(plan, member.step.max(world.record.start.step));
        let stop = world.stopping.as_ref().map(|stopping| stopping.why.clone());
        let communicators = world.communicators.clone();
        if !steps.is_empty() {
            self.send(id, CoordinatorMessage::Plan(PlanWindow { generation, steps }));
        }
        if let Some(ids) = communicators {
            self.send(id, CoordinatorMessage::CommunicatorIds(ids));
        }
        if let Some(reason) = stop {
            self.send(id, CoordinatorMessage::Stop(Stop { generation, reason }));
        }
        if adopted {
            let ranks = u32::try_from(self.roster.members().len()).unwrap_or(u32::MAX);
            self.note(Occurrence::WorldAdopted { generation, ranks });
            self.since = self.now;
        }
        if let Some(proven) = member.proven {
            self.compare_digest(member.rank, proven);
        }
        self.in_flight(id, member.step);
        self.feed();
    }

    /// A worker that was expected to come back to the world has come without it, or another in its place.
    pub(crate) fn count_out(&mut self, hello: &Hello, slot: Slot) {
        let Some(world) = self.live() else { return };
        let gone = |rank: &&Rank| {
            let place = &world.record.members[rank.0 as usize];
            place.slot == slot || place.worker == hello.worker
        };
        let Some(rank) = world.missing.iter().find(gone).copied() else { return };
        let reason = format!("rank {} (slot {}) has left its world", rank.0, slot.0);
        self.fail_world(vec![rank], &reason);
    }

    pub(crate) fn end_waiting_for_members(&mut self) {
        let State::Running(world) = &self.state else { return };
        if world.missing.is_empty() || self.now < world.missing_until {
            return;
        }
        let missing: Vec<_> = world.missing.iter().copied().collect();
        let ranks: Vec<_> = missing.iter().map(|rank| rank.0.to_string()).collect();
        let reason = format!(
            "rank {} did not come back within {:?} after the coordinator was started again",
            ranks.join(", "),
            world.missing_until
        );
        self.fail_world(missing, &reason);
    }
}
