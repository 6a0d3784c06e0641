//! The machine: one function per event.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Generation, Rank, WorkerUid};
use lockstep_proto::server::Refusal;
use lockstep_proto::{
    Abort, CheckpointWritten, CoordinatorMessage, Enlist, Exit, Occurrence, Phase, RunEvent,
    Secret, WorkerMessage,
};

use crate::adoption::recall;
use crate::cooldown::Cooldowns;
use crate::event::{Effect, Event, SessionId};
use crate::forming::Forming;
use crate::journal::{Banned, Memory, Record};
use crate::plan::RunPlan;
use crate::progress::Progress;
use crate::roster::{Roster, Standing};
use crate::world::LiveWorld;

/// What the machine is told once.
#[derive(Debug)]
pub struct Settings {
    /// The run.
    pub config: RunConfig,
    /// Version of this program; workers must have the same.
    pub version: String,
    /// Randomness that the secrets of generations are made of.
    pub seed: Secret,
    /// What the coordinators before this one have journaled.
    pub memory: Memory,
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
    /// Whether a world has trained on that data set, so that no other will do.
    pub(crate) bound: bool,
    pub(crate) state: State,
    /// When it began to do, or wait for, what it does.
    pub(crate) since: Duration,
    pub(crate) generation: Generation,
    pub(crate) progress: Progress,
    pub(crate) fruitless_worlds: u32,
    pub(crate) cooldowns: Cooldowns,
    /// Whether an operator holds the run: no world forms.
    pub(crate) paused: bool,
    /// Workers that were sent away for good.
    pub(crate) banned: BTreeMap<WorkerUid, Banned>,
    next_event: u64,
    /// The world with which the run has ended, while workers are still here.
    pub(crate) unclosed: Option<Generation>,
    /// When a world was broken that no later one has made good by a step.
    pub(crate) broken_since: Option<Duration>,
    effects: Vec<Effect>,
}

/// What the run is doing.
#[derive(Debug)]
pub(crate) enum State {
    Forming(Forming),
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
    /// A run as the journal tells it, and without workers yet.
    pub fn new(mut settings: Settings) -> Self {
        let memory = std::mem::take(&mut settings.memory);
        let (generation, banned) = (memory.generation(), memory.banned.clone());
        let progress = Progress::recall(&memory);
        let (plan, state) = recall(&settings.config, memory);
        let cooldown = Duration::from_millis(settings.config.control.cooldown_ms.into());
        Self {
            next_event: settings.next_event,
            paused: settings.paused,
            settings,
            now: Duration::ZERO,
            roster: Roster::default(),
            bound: plan.is_some(),
            plan,
            state,
            since: Duration::ZERO,
            generation,
            progress,
            fruitless_worlds: 0,
            cooldowns: Cooldowns::new(cooldown),
            banned,
            unclosed: None,
            broken_since: None,
            effects: Vec::new(),
        }
    }

    /// Applies one event. Same events in the same order give the same effects.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        self.now = now;
        let routine = event.is_heartbeat();
        match event {
            Event::Started => {
                self.note(Occurrence::CoordinatorStarted { generation: self.generation });
            }
            Event::Connected { session, hello } => self.connected(session, *hello),
            Event::Message { session, message } => self.heard(session, *message),
            Event::Lost { session, why } => self.lost(session, &why),
            Event::Tick => self.tick(),
            Event::StopRequested => self.stop_requested(),
        }
        if !routine {
            self.settle();
        }
        self.take_effects()
    }

    fn tick(&mut self) {
        self.end_silent_sessions();
        self.end_waiting_for_members();
        self.end_stuck_world();
    }

    /// Draws the consequences of who is there now.
    pub(crate) fn settle(&mut self) {
        self.form_if_ready();
        self.admit_joiners();
    }

    fn heard(&mut self, id: SessionId, message: WorkerMessage) {
        // A message of a session that was closed here has crossed the closing on the wire.
        let Some(session) = self.roster.get_mut(id) else { return };
        session.last_heard = self.now;
        match message {
            WorkerMessage::Hello(_) => self.break_off(id, "said hello twice"),
            WorkerMessage::Enlist(enlist) => self.enlist(id, enlist),
            WorkerMessage::Heartbeat(heartbeat) => self.heartbeat(id, heartbeat),
            WorkerMessage::Reports(reports) => self.reports(id, &reports),
            WorkerMessage::WorldEnded(ended) => self.world_ended(id, &ended),
            WorkerMessage::CheckpointWritten(written) => self.checkpoint_written(written),
            WorkerMessage::CommunicatorIds(ids) => self.communicator_ids(id, ids),
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
        let live = self.live().map(LiveWorld::generation);
        let Some(session) = self.roster.get_mut(id) else { return };
        if session.rank().is_some() {
            // Said before it heard of this world, it is out of date.
            if Some(enlist.ended) >= live {
                self.break_off(id, "enlisted before it ended its world");
            }
            return;
        }
        if self.banned.contains_key(&session.worker) {
            return self.dismiss_drained(id);
        }
        session.standing = Standing::Enlisted(enlist);
    }

    /// Sends a worker away for good, in the eyes of later coordinators too.
    pub(crate) fn ban(&mut self, worker: WorkerUid, why: Banned) {
        self.emit(Effect::Journal(Record::Banned(worker.clone(), why)));
        self.banned.insert(worker, why);
    }

    fn checkpoint_written(&mut self, written: CheckpointWritten) {
        let step = written.state.step;
        if self.progress.checkpoint < Some(step) {
            self.progress.checkpoint = Some(step);
            self.emit(Effect::Journal(Record::Checkpoint(step)));
        }
        if let State::Running(world) = &mut self.state {
            world.saving = false;
        }
        self.note(Occurrence::CheckpointSaved { step, path: written.path });
    }

    /// The rank under which a message of `generation` counts. A worker that is still in a world
    /// which is over for everyone else is told so, once.
    pub(crate) fn membership(&mut self, id: SessionId, generation: Generation) -> Option<Rank> {
        let live = self.live().map(LiveWorld::generation);
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

    // Small tools.

    /// The present world.
    pub(crate) fn live(&self) -> Option<&LiveWorld> {
        match &self.state {
            State::Running(world) => Some(world),
            State::Forming(_) | State::Over(_) => None,
        }
    }

    pub(crate) fn enter(&mut self, state: State) {
        self.state = state;
        self.since = self.now;
    }

    /// Adds an event to what people may ask for.
    pub(crate) fn note(&mut self, what: Occurrence) {
        let unix_ms = self.unix_ms(self.now);
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

    /// A time of this machine in milliseconds since 1970 (UTC).
    pub(crate) fn unix_ms(&self, time: Duration) -> u64 {
        millis(self.settings.started + time)
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
