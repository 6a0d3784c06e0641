//! When a world forms, and of whom.
//!
//! At once, when as many workers are ready as the run wants, nobody of the last world is still on the way, and the run does
//! not fall back behind a step that is known to be applied, since its last state may still come. Otherwise behind a last call, with as many as there are, but no fewer than `run.min_world` and always more than half of those
//! who count. Who is too many waits as a spare; a place that becomes free is taken at the next announced step edge, or
//! with the next world.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use lockstep_proto::ids::{Cursor, Generation, Rank, Step, WorkerUid};
use lockstep_proto::{CoordinatorMessage, Occurrence, PlanWindow, StepPlan, World};

use crate::core::{Core, State};
use crate::event::{Effect, SessionId};
use crate::journal::{Place, Planned, Record, WorldRecord};
use crate::roster::{Session, Standing};
use crate::world::{LiveWorld, draw_up};

/// A run without a world.
#[derive(Debug)]
pub(crate) struct Forming {
    /// How the last world ended.
    pub(crate) after: Option<String>,
    pub(crate) call: Call,
    /// Members of the last world, who hold its state.
    survivors: BTreeSet<WorkerUid>,
    /// Since when a world could form without those who are still away.
    pub(crate) quorum: Option<Duration>,
}

/// What a world forms after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Nothing: workers are being started.
    Cold,
    /// A world that was broken.
    Failure,
    /// A world that all ranks left at one step edge.
    Edge,
}

/// Who is there for the next world.
#[derive(Debug)]
struct Muster {
    /// Who waits for it, by slot.
    ready: Vec<SessionId>,
    /// Members of the last world that are on their way.
    awaited: usize,
    /// Everyone whose majority it takes.
    leased: usize,
}

impl Forming {
    /// While workers are being started, anew where there was a world.
    pub(crate) fn cold(last: Option<&WorldRecord>) -> Self {
        let survivors = last.map_or_else(BTreeSet::new, members);
        Self { after: None, call: Call::Cold, survivors, quorum: None }
    }

    /// After that world.
    pub(crate) fn behind(call: Call, after: String, world: &WorldRecord) -> Self {
        Self { after: Some(after), call, survivors: members(world), quorum: None }
    }
}

fn members(world: &WorldRecord) -> BTreeSet<WorkerUid> {
    world.members.iter().map(|place| place.worker.clone()).collect()
}

impl Core {
    pub(crate) fn form_if_ready(&mut self) {
        let State::Forming(forming) = &self.state else { return };
        let call = forming.call;
        let muster = self.muster(forming);
        let enough = !self.paused && self.is_quorum(&muster);
        let State::Forming(forming) = &mut self.state else { return };
        if !enough {
            forming.quorum = None;
            return;
        }
        let since = *forming.quorum.get_or_insert(self.now);
        let wanted = self.settings.config.run.world as usize;
        let many = muster.ready.len() >= wanted || call == Call::Edge;
        let all = many && muster.awaited == 0 && !self.falls_back(&muster.ready);
        if all || self.now >= since + self.last_call(call) {
            self.form(muster.ready);
        }
    }

    /// Who is there. Workers that are being started count from the beginning of a run, but hold up no run that had a
    /// world; those that cool down never count.
    fn muster(&self, forming: &Forming) -> Muster {
        let mut muster = Muster { ready: Vec::new(), awaited: 0, leased: 0 };
        for (id, session) in self.roster.by_slot() {
            if !self.cooldown(session).is_zero() {
                continue;
            }
            let survives = forming.survivors.contains(&session.worker);
            match session.standing {
                Standing::Enlisted(_) => muster.ready.push(id),
                Standing::Idle if survives => muster.awaited += 1,
                Standing::Idle if forming.call == Call::Cold => muster.leased += 1,
                Standing::Idle | Standing::Member(_) => {}
            }
        }
        muster.leased += muster.ready.len() + muster.awaited;
        muster
    }

    fn is_quorum(&self, muster: &Muster) -> bool {
        let run = &self.settings.config.run;
        let ready = muster.ready.len();
        ready >= run.least() as usize && ready * 2 > muster.leased.min(run.most() as usize)
    }

    /// Whether nobody of these holds what the run has come to.
    fn falls_back(&self, ready: &[SessionId]) -> bool {
        let newest = ready.iter().filter_map(|id| self.held(*id)).max();
        newest.map_or(Step(0), |(step, _)| step) < self.progress.step
    }

    pub(crate) fn held(&self, id: SessionId) -> Option<(Step, Cursor)> {
        let state = self.roster.get(id)?.enlisted()?.state?;
        Some((state.step, state.cursor))
    }

    pub(crate) fn last_call(&self, call: Call) -> Duration {
        let control = &self.settings.config.control;
        Duration::from_millis(match call {
            Call::Cold => control.cold_call_ms.into(),
            Call::Failure | Call::Edge => control.last_call_ms.into(),
        })
    }

    pub(crate) fn cooldown(&self, session: &Session) -> Duration {
        self.cooldowns.left(&session.place(), self.now)
    }

    fn form(&mut self, ready: Vec<SessionId>) {
        let chosen = self.choose(ready);
        if self.refuse_odd_backends(&chosen) {
            return;
        }
        let enlisted = |id: &SessionId| {
            let session = self.roster.get(*id).expect("it is ready");
            (session, session.enlisted().expect("it is ready"))
        };
        let recruits: Vec<_> = chosen.iter().map(enlisted).collect();
        let plan = self.plan.as_ref().expect("admitting a worker made the plan");
        let world = draw_up(
            &recruits,
            &self.settings.config,
            Generation(self.generation.0 + 1),
            &self.settings.seed,
            plan.total_steps(),
        );
        let members = world.members.iter().zip(&recruits).map(|(member, (session, _))| Place {
            worker: member.worker.clone(),
            slot: member.slot,
            host: session.host.clone(),
            lanes: member.lanes,
        });
        let (generation, start) = (world.generation, world.start);
        let (members, data) = (members.collect(), plan.data.clone());
        // Without its checkpoint a run is not complete: these workers form a world without steps, which writes it.
        if start.step.0 >= plan.total_steps() && self.progress.checkpoint >= Some(start.step) {
            self.progress.restart(start);
            return self.complete();
        }
        self.announce(&world, WorldRecord { generation, data, start, members }, &chosen);
    }

    /// Those with the newest states, and of equals those with the lowest slots; as many as may train together. Ranks
    /// follow slots, so that they change little from world to world.
    fn choose(&self, mut ready: Vec<SessionId>) -> Vec<SessionId> {
        let session = |id: &SessionId| self.roster.get(*id).expect("it is ready");
        ready.sort_by_key(|id| Reverse(self.held(*id)));
        ready.truncate(self.settings.config.run.most() as usize);
        ready.sort_by_key(|id| session(id).slot);
        ready
    }

    fn announce(&mut self, world: &World, record: WorldRecord, sessions: &[SessionId]) {
        self.generation = world.generation;
        self.bound = true;
        self.emit(Effect::Journal(Record::World(record.clone())));
        self.note(Occurrence::WorldFormed {
            generation: world.generation,
            step: world.start.step,
            slots: world.members.iter().map(|member| member.slot).collect(),
        });
        self.progress.restart(world.start);
        for (rank, id) in (0..).map(Rank).zip(sessions) {
            let session = self.roster.get_mut(*id).expect("it has just enlisted");
            session.standing = Standing::Member(rank);
            session.step = world.start.step;
            self.send(*id, CoordinatorMessage::World(World { rank, ..world.clone() }));
        }
        let window = self.settings.config.control.plan_window;
        self.enter(State::Running(Box::new(LiveWorld::new(record, window, self.now))));
        self.feed();
    }

    /// Sends the next window of the plan to all members, if it is due.
    pub(crate) fn feed(&mut self) {
        let (State::Running(world), Some(plan)) = (&mut self.state, &self.plan) else { return };
        if !world.is_carried() {
            return;
        }
        let Some(steps) = world.feed.due(plan, world.newest) else { return };
        self.send_plan(steps);
    }

    /// Has the present world end at a step edge that is planned for it, where others wait for a free place.
    pub(crate) fn admit_joiners(&mut self) {
        let most = self.settings.config.run.most();
        let State::Running(world) = &self.state else { return };
        let ends = world.feed.closed || world.stopping.is_some() || !world.ends.is_empty();
        if world.size() >= most || ends || !world.missing.is_empty() || self.spares() == 0 {
            return;
        }
        let (State::Running(world), Some(plan)) = (&mut self.state, &self.plan) else { return };
        if let Some(last) = world.feed.close(plan) {
            self.send_plan(vec![last]);
        }
    }

    /// Workers that wait for a place in a world, and may have one.
    pub(crate) fn spares(&self) -> usize {
        let waits = |s: &Session| s.enlisted().is_some() && self.cooldown(s).is_zero();
        self.roster.by_slot().filter(|(_, session)| waits(session)).count()
    }

    fn send_plan(&mut self, steps: Vec<StepPlan>) {
        let State::Running(world) = &self.state else { return };
        let planned = Planned {
            generation: world.generation(),
            until: world.feed.next,
            regroup: world.feed.closed,
            step: self.progress.step,
            cursor: self.progress.cursor,
        };
        let window = PlanWindow { generation: planned.generation, steps };
        self.emit(Effect::Journal(Record::Planned(planned)));
        self.send_to_members(&CoordinatorMessage::Plan(window));
    }
}
