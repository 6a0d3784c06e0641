//! The machine: one function per event, and the transitions between its states.

use std::collections::BTreeSet;
use std::time::Duration;

use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Generation, Rank, WorkerUid};
use lockstep_proto::server::Refusal;
use lockstep_proto::{
    Abort, CoordinatorMessage, Dismiss, Enlist, Exit, Occurrence, Phase, PlanWindow, RunEvent,
    Secret, WorkerMessage, World, WorldEnd, WorldEnded,
};

use crate::admission::name;
use crate::event::{Effect, Event, SessionId};
use crate::plan::RunPlan;
use crate::progress::Progress;
use crate::roster::{Roster, Standing};
use crate::world::{LiveWorld, draw_up};

/// Worlds in a row that may fail without a step; then the run fails, since the next would too.
const MAX_FRUITLESS_WORLDS: u32 = 3;

/// What the machine is told once.
#[derive(Debug)]
pub struct Settings {
    /// The run.
    pub config: RunConfig,
    /// Version of this program; workers must have the same.
    pub version: String,
    /// Randomness that the secrets of generations are made of.
    pub seed: Secret,
    /// Highest generation that was ever announced; 0: none.
    pub last_generation: Generation,
    /// Time since 1970 (UTC) at which `now` is zero.
    pub started: Duration,
    /// Sequence number of the first event that this machine notes, at least 1.
    pub next_event: u64,
    /// Whether the run was paused when the coordinator before this one ended.
    pub paused: bool,
}

/// One run, as the coordinator sees it. `now` is always time since the coordinator started.
#[derive(Debug)]
pub struct Core {
    pub(crate) settings: Settings,
    /// Time of the event that is being applied.
    pub(crate) now: Duration,
    pub(crate) roster: Roster,
    /// Known once a worker has brought the data set.
    pub(crate) plan: Option<RunPlan>,
    pub(crate) state: State,
    pub(crate) generation: Generation,
    pub(crate) progress: Progress,
    fruitless_worlds: u32,
    /// Whether an operator holds the run: no world forms.
    pub(crate) paused: bool,
    /// Workers that an operator sent away: one entry per such call.
    pub(crate) drained: BTreeSet<WorkerUid>,
    next_event: u64,
    /// When a world was broken that no later one has made good by a step.
    broken_since: Option<Duration>,
    effects: Vec<Effect>,
}

/// What the run is doing.
#[derive(Debug)]
pub(crate) enum State {
    Forming {
        /// How the last world ended.
        after: Option<String>,
    },
    Running(Box<LiveWorld>),
    Over(Verdict),
}

/// How the run ended for this process.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) phase: Phase,
    pub(crate) exit: Exit,
    pub(crate) reason: String,
}

impl Core {
    /// A run without workers.
    pub fn new(settings: Settings) -> Self {
        Self {
            generation: settings.last_generation,
            next_event: settings.next_event,
            paused: settings.paused,
            settings,
            now: Duration::ZERO,
            roster: Roster::default(),
            plan: None,
            state: State::Forming { after: None },
            progress: Progress::default(),
            fruitless_worlds: 0,
            drained: BTreeSet::new(),
            broken_since: None,
            effects: Vec::new(),
        }
    }

    /// Applies one event. Same events in the same order give the same effects.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        self.now = now;
        match event {
            Event::Started => {
                self.note(Occurrence::CoordinatorStarted { generation: self.generation });
            }
            Event::Connected { session, hello } => self.connected(now, session, *hello),
            Event::Message { session, message } => self.heard(now, session, message),
            Event::Lost { session, why } => self.lost(session, &why),
            Event::Tick => self.end_silent_sessions(now),
            Event::StopRequested => self.stop_requested(),
        }
        self.take_effects()
    }

    fn heard(&mut self, now: Duration, id: SessionId, message: WorkerMessage) {
        // A message of a session that was closed here has crossed the closing on the wire.
        let Some(session) = self.roster.get_mut(id) else { return };
        session.last_heard = now;
        match message {
            WorkerMessage::Hello(_) => self.break_off(id, "said hello twice"),
            WorkerMessage::Enlist(enlist) => self.enlist(id, enlist),
            WorkerMessage::Heartbeat(heartbeat) => self.heartbeat(id, heartbeat),
            WorkerMessage::Reports(reports) => self.reports(id, &reports),
            WorkerMessage::WorldEnded(ended) => self.world_ended(id, &ended),
            WorkerMessage::CheckpointWritten(written) => {
                let step = written.state.step;
                self.progress.checkpoint = self.progress.checkpoint.max(Some(step));
                if let State::Running(world) = &mut self.state {
                    world.saving = false;
                }
                self.note(Occurrence::CheckpointSaved { step, path: written.path });
            }
            WorkerMessage::Goodbye(goodbye) => {
                self.close(id, None);
                self.lost(id, &format!("it said goodbye: {}", goodbye.reason));
            }
        }
    }

    /// Ends a session that broke the protocol.
    pub(crate) fn break_off(&mut self, id: SessionId, what: &str) {
        self.close(id, Some(Refusal::Protocol(format!("this worker {what}"))));
        self.lost(id, &format!("it {what}"));
    }

    fn enlist(&mut self, id: SessionId, enlist: Enlist) {
        let Some(session) = self.roster.get_mut(id) else { return };
        if session.rank().is_some() {
            return self.break_off(id, "enlisted before it ended its world");
        }
        if self.drained.contains(&session.worker) {
            return self.dismiss_drained(id);
        }
        session.standing = Standing::Enlisted(enlist);
        self.form_if_ready();
    }

    fn world_ended(&mut self, id: SessionId, ended: &WorldEnded) {
        let Some(rank) = self.membership(id, ended.generation) else { return };
        let Some(session) = self.roster.get_mut(id) else { return };
        session.standing = Standing::Idle;
        session.over = ended.generation;
        if ended.reason == WorldEnd::Failed {
            let reason = format!("{}: {}", name(rank, session), ended.detail);
            return self.fail_world(ended.culprit.into_iter().collect(), &reason);
        }
        let State::Running(world) = &mut self.state else { return };
        world.ends.push(ended.reason);
        if world.is_over() {
            self.world_over();
        }
    }

    /// The rank under which a message of `generation` counts. A worker that is still in a world
    /// which is over for everyone else is told so, once; this is how one that outlived the
    /// coordinator comes back.
    pub(crate) fn membership(&mut self, id: SessionId, generation: Generation) -> Option<Rank> {
        let live = self.live().map(|world| world.generation);
        let session = self.roster.get_mut(id)?;
        if let Some(rank) = session.rank() {
            return (live == Some(generation)).then_some(rank);
        }
        if session.standing == Standing::Idle && generation > session.over {
            session.over = generation;
            let reason = format!("generation {} is over; enlist again", generation.0);
            let abort = Abort { generation, culprits: Vec::new(), reason };
            self.send(id, CoordinatorMessage::Abort(abort));
        }
        None
    }

    // Transitions.

    pub(crate) fn form_if_ready(&mut self) {
        let expected = self.settings.config.run.world as usize;
        let waiting = matches!(self.state, State::Forming { .. }) && !self.paused;
        if !waiting || self.roster.len() < expected {
            return;
        }
        if !self.roster.by_slot().all(|(_, session)| session.enlisted().is_some()) {
            return;
        }
        let plan = self.plan.as_ref().expect("admitting a worker made the plan");
        let (world, sessions) = draw_up(
            &self.roster,
            &self.settings.config,
            Generation(self.generation.0 + 1),
            &self.settings.seed,
            plan.total_steps(),
        );
        if world.start.step.0 >= plan.total_steps() {
            self.progress.restart(world.start);
            return self.complete();
        }
        self.announce(&world, &sessions);
    }

    fn announce(&mut self, world: &World, sessions: &[SessionId]) {
        self.generation = world.generation;
        self.effects.push(Effect::Journal(world.generation));
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
        self.state = State::Running(Box::new(LiveWorld::new(world, window)));
        self.feed();
    }

    /// Sends the next window of the plan to all members, if it is due.
    pub(crate) fn feed(&mut self) {
        let (State::Running(world), Some(plan)) = (&mut self.state, &self.plan) else { return };
        let Some(steps) = world.feed.due(plan, world.newest) else { return };
        let window = PlanWindow { generation: world.generation, steps };
        self.send_to_members(&CoordinatorMessage::Plan(window));
    }

    /// All ranks have left the world, none because of a failure.
    fn world_over(&mut self) {
        let State::Running(world) = &self.state else { return };
        let generation = world.generation;
        let reason = world.stopping.as_ref().map_or("", |stopping| &stopping.why).to_owned();
        let ends_run = world.ends_run().is_some();
        self.fruitless_worlds = 0;
        if world.ends.iter().all(|end| *end == WorldEnd::Complete) {
            return self.complete();
        }
        self.note(Occurrence::WorldStopped { generation, reason: reason.clone() });
        if ends_run {
            self.stopped(&reason);
        } else {
            let after = Some(format!("generation {} stopped at a step edge", generation.0));
            self.state = State::Forming { after };
        }
    }

    /// The world is broken: whoever is still in it is told to leave.
    pub(crate) fn fail_world(&mut self, culprits: Vec<Rank>, reason: &str) {
        let State::Running(world) = &self.state else { return };
        let (generation, ends_run) = (world.generation, world.ends_run().map(ToOwned::to_owned));
        self.fruitless_worlds = if world.progressed() { 0 } else { self.fruitless_worlds + 1 };
        self.broken_since = self.broken_since.or(Some(self.now));
        self.abort_members(generation, culprits, reason);
        if let Some(why) = ends_run {
            self.stopped(&format!("{why}; not at a step edge, since {reason}"));
        } else if self.fruitless_worlds >= MAX_FRUITLESS_WORLDS {
            self.fail(format!(
                "{MAX_FRUITLESS_WORLDS} worlds in a row ended without a step; the last: {reason}"
            ));
        } else {
            let after = format!("generation {} failed: {reason}", generation.0);
            self.state = State::Forming { after: Some(after) };
        }
    }

    /// Going on makes no sense, in this world or another: the run ends.
    pub(crate) fn give_up(&mut self, culprits: Vec<Rank>, reason: String) {
        let Some(generation) = self.live().map(|world| world.generation) else { return };
        self.abort_members(generation, culprits, &reason);
        self.fail(reason);
    }

    fn abort_members(&mut self, generation: Generation, culprits: Vec<Rank>, reason: &str) {
        let reason = reason.to_owned();
        self.note(Occurrence::WorldAborted {
            generation,
            culprits: culprits.clone(),
            reason: reason.clone(),
        });
        let abort = Abort { generation, culprits, reason };
        for (id, _) in self.roster.members() {
            let session = self.roster.get_mut(id).expect("members have sessions");
            session.standing = Standing::Idle;
            session.over = generation;
            self.send(id, CoordinatorMessage::Abort(abort.clone()));
        }
    }

    fn complete(&mut self) {
        let reason = format!("all {} steps are applied", self.progress.step.0);
        self.end(Verdict { phase: Phase::Complete, exit: Exit::Done, reason });
    }

    pub(crate) fn stopped(&mut self, why: &str) {
        let reason = format!("stopped at step {}: {why}", self.progress.step.0);
        self.end(Verdict { phase: Phase::Stopping, exit: Exit::Done, reason });
    }

    fn fail(&mut self, reason: String) {
        self.end(Verdict { phase: Phase::Failed, exit: Exit::DoNotRestart, reason });
    }

    fn end(&mut self, verdict: Verdict) {
        let dismiss = Dismiss { exit: verdict.exit, reason: verdict.reason.clone() };
        for id in self.roster.ids() {
            let session = self.roster.get_mut(id).expect("its id was just listed");
            session.standing = Standing::Idle;
            session.over = self.generation;
            self.send(id, CoordinatorMessage::Dismiss(dismiss.clone()));
        }
        self.note(Occurrence::RunEnded { exit: verdict.exit, reason: verdict.reason.clone() });
        self.effects.push(Effect::Finished(verdict.exit));
        self.state = State::Over(verdict);
    }

    // Small tools.

    /// The present world.
    pub(crate) fn live(&self) -> Option<&LiveWorld> {
        match &self.state {
            State::Running(world) => Some(world),
            State::Forming { .. } | State::Over(_) => None,
        }
    }

    /// Adds an event to what people may ask for.
    pub(crate) fn note(&mut self, what: Occurrence) {
        let unix_ms = millis(self.settings.started + self.now);
        let event = RunEvent { sequence: self.next_event, unix_ms, what };
        self.next_event += 1;
        self.effects.push(Effect::Noted(event));
    }

    /// A world has applied a step: whatever was broken before is made good.
    pub(crate) fn note_recovery(&mut self, generation: Generation) {
        if let Some(since) = self.broken_since.take() {
            let after_ms = millis(self.now.saturating_sub(since));
            self.note(Occurrence::TrainingRecovered { generation, after_ms });
        }
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn send(&mut self, session: SessionId, message: CoordinatorMessage) {
        self.effects.push(Effect::Send { session, message });
    }

    pub(crate) fn send_to_members(&mut self, message: &CoordinatorMessage) {
        for (id, _) in self.roster.members() {
            self.send(id, message.clone());
        }
    }

    pub(crate) fn close(&mut self, session: SessionId, refusal: Option<Refusal>) {
        self.effects.push(Effect::Close { session, refusal });
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
