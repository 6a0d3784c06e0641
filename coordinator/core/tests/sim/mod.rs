//! A run in simulated time: machines with worker processes, a network that delays, repeats and loses, and a coordinator
//! that may die between any two of its effects. All chance comes from one seed.

mod checks;
pub(crate) mod dice;
mod faults;
mod law;
mod meeting;
mod net;
mod process;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use lockstep_core::{Core, Effect, Event, Memory, SessionId, Settings};
use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Generation, Rank, Slot, WorkerUid};
use lockstep_proto::server::Refusal;
use lockstep_proto::{
    Backend, CoordinatorMessage, Hello, Occurrence, OperatorCommand, Phase, Secret, WorkerMessage,
    WorldEnd,
};

use self::dice::Dice;
use self::law::Law;
use self::meeting::{Held, Meeting};
use self::net::{Stream, Way};
use self::process::Process;
use crate::support::{VERSION, config, secs};

/// Steps of a run.
pub(crate) const STEPS: u64 = 60;
const HEARTBEAT: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(100);
const NCCL: Backend = Backend::Nccl { version: 22_907 };
const OTHER_NCCL: Backend = Backend::Nccl { version: 22_803 };

/// What happens at some time.
#[derive(Debug)]
enum Happening {
    Tick,
    /// A process sends its heartbeat, and says what it has to say.
    Beat(usize),
    /// A trainer goes on.
    Work(usize),
    /// A machine without a process starts one; a process without a stream opens one.
    Wake(usize),
    Hello(u64, Box<Hello>),
    Up(u64, Box<WorkerMessage>),
    Down(u64, Box<CoordinatorMessage>),
    /// The coordinator notices that a stream is dead.
    UpBroken(u64),
    /// The worker does.
    DownBroken(u64),
    /// The coordinator has closed a stream.
    Closed(u64, Option<Refusal>),
    CoordinatorStarts,
    Fault,
}

/// Who fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Everywhere,
    Coordinator,
}

/// A place where a worker process may run.
#[derive(Debug, Default)]
struct Machine {
    process: Option<Process>,
    /// Newest checkpoint on its disk.
    disk: Option<Held>,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Sim {
    seed: u64,
    pub(crate) config: RunConfig,
    dice: Dice,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Happening>,
    happenings: u64,
    core: Option<Core>,
    /// When the present coordinator was started.
    started: Duration,
    memory: Memory,
    next_event: u64,
    pub(crate) paused: bool,
    pub(crate) stop_asked: bool,
    /// How the run ended.
    pub(crate) over: Option<Phase>,
    pub(crate) reason: String,
    /// By stream: who is there in the eyes of the coordinator, and whether it has enlisted.
    heard_of: BTreeMap<u64, (WorkerUid, bool)>,
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    processes: u64,
    machines: Vec<Machine>,
    /// Whether every machine has a slot of its own.
    fixed: bool,
    /// What the machines have; now and then one has something else.
    backend: Backend,
    /// Of every process that was started.
    backends: BTreeMap<String, Backend>,
    meetings: BTreeMap<Generation, Meeting>,
    pub(crate) law: Law,
    /// By batch: worlds that have completed it.
    pub(crate) batches: BTreeMap<u64, u32>,
    /// When faults happen.
    pub(crate) faults: Range<Duration>,
    pub(crate) trouble: Trouble,
}

/// Whatever the reason, a failing seed is told.
impl Drop for Sim {
    #[expect(clippy::print_stderr, reason = "a failing test tells how to repeat it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {:?}: replay with SIM_SEED={}", self.now, self.seed);
        }
    }
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let world = dice.small(1, 3);
        let config = shape(&mut dice, world);
        let machines = dice.small(config.run.world, 5);
        let fixed = dice.one_in(2);
        let backend = if dice.one_in(2) { Backend::Host } else { NCCL };
        let mut sim = Self {
            seed,
            config,
            fixed,
            backend,
            backends: BTreeMap::new(),
            dice,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            happenings: 0,
            core: None,
            started: Duration::ZERO,
            memory: Memory::default(),
            next_event: 1,
            paused: false,
            stop_asked: false,
            over: None,
            reason: String::new(),
            heard_of: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            processes: 0,
            machines: (0..machines).map(|_| Machine::default()).collect(),
            meetings: BTreeMap::new(),
            law: Law::default(),
            batches: BTreeMap::new(),
            faults: secs(0)..secs(20),
            trouble: Trouble::Everywhere,
        };
        sim.law.holds(Held::INITIAL);
        sim.after(Duration::ZERO, Happening::CoordinatorStarts);
        sim.after(Duration::ZERO, Happening::Tick);
        sim.after(secs(1), Happening::Fault);
        for machine in 0..sim.machines.len() {
            let late = sim.dice.ms(0, 2000);
            sim.after(late, Happening::Wake(machine));
            sim.after(late, Happening::Work(machine));
            sim.after(late, Happening::Beat(machine));
        }
        sim
    }

    pub(crate) fn explain(&self) -> String {
        let down = || format!("no coordinator; {}", self.reason);
        self.core.as_ref().map_or_else(down, Core::explain)
    }

    /// Lets time pass until then, or until the run is over.
    pub(crate) fn run_until(&mut self, end: Duration) {
        while self.over.is_none()
            && let Some(((at, _), happening)) = self.queue.pop_first()
        {
            if at > end {
                self.queue.insert((at, 0), happening);
                break;
            }
            self.now = at;
            self.happen(happening);
        }
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.happenings += 1;
        self.queue.insert((at, self.happenings), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => {
                self.tell(Event::Tick);
                self.check_status();
                self.after(TICK, Happening::Tick);
            }
            Happening::Beat(machine) => self.beat(machine),
            Happening::Work(machine) => self.work(machine),
            Happening::Wake(machine) => self.wake(machine),
            Happening::Hello(stream, hello) => {
                if self.alive(stream) && self.core.is_some() {
                    self.tell(Event::Connected { session: SessionId(stream), hello });
                } else {
                    self.cut(stream);
                }
            }
            Happening::Up(stream, message) => {
                if self.alive(stream) {
                    self.tell(Event::Message { session: SessionId(stream), message });
                }
            }
            Happening::Down(stream, message) => self.hear(stream, message),
            Happening::UpBroken(stream) => {
                let why = "connection reset".into();
                self.tell(Event::Lost { session: SessionId(stream), why });
            }
            Happening::DownBroken(stream) => self.lose_stream(stream),
            Happening::Closed(stream, refusal) => self.closed(stream, refusal.as_ref()),
            Happening::CoordinatorStarts => self.start_coordinator(),
            Happening::Fault => self.fault(),
        }
    }

    // The coordinator.

    fn start_coordinator(&mut self) {
        self.started = self.now;
        self.core = Some(Core::new(Settings {
            config: self.config.clone(),
            version: VERSION.into(),
            seed: Secret([7; 32]),
            memory: self.memory.clone(),
            started: self.now,
            next_event: self.next_event,
            paused: self.paused,
        }));
        self.tell(Event::Started);
    }

    fn tell(&mut self, event: Event) {
        self.hear_of(&event);
        let now = self.now.saturating_sub(self.started);
        let Some(core) = &mut self.core else { return };
        let effects = core.step(now, event);
        self.perform(effects);
    }

    fn ask(&mut self, command: &OperatorCommand) {
        let now = self.now.saturating_sub(self.started);
        let Some(core) = &mut self.core else { return };
        if *command == OperatorCommand::Stop {
            self.stop_asked = true;
        }
        let (effects, _) = core.operate(now, command.clone());
        let (again, _) = core.operate(now, command.clone());
        assert!(again.is_empty(), "{command} is not idempotent: {again:?}");
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        // A process may die between any two effects.
        let chances = if self.faults.contains(&self.now) { 600 } else { u64::MAX };
        for effect in effects {
            if !matches!(effect, Effect::Applied(_)) && self.dice.one_in(chances) {
                return self.kill_coordinator();
            }
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Journal(record) => {
                self.law.journal(&record);
                self.memory.apply(record);
            }
            Effect::Send { session, message } => self.send_down(session.0, message),
            Effect::Close { session, refusal } => {
                self.check_closing(session.0, refusal.as_ref());
                self.heard_of.remove(&session.0);
                let Some(stream) = self.streams.get_mut(&session.0) else { return };
                let at = stream.arrival(Way::Down, self.now, &mut self.dice);
                self.at(at, Happening::Closed(session.0, refusal));
            }
            Effect::Applied(line) => self.law.applied(&line),
            Effect::Noted(event) => {
                assert_eq!(event.sequence, self.next_event, "events are numbered without gaps");
                self.next_event += 1;
                if let Occurrence::OperatorAsked { command } = &event.what {
                    let pauses = *command == OperatorCommand::Pause.to_string();
                    let resumes = *command == OperatorCommand::Resume.to_string();
                    self.paused = pauses || (self.paused && !resumes);
                }
            }
            Effect::Finished(_) => {
                let core = self.core.as_ref().expect("it has just decided");
                (self.over, self.reason) = (Some(core.status().phase), core.explain());
                self.check_complete();
            }
        }
    }

    fn send_down(&mut self, stream: u64, message: CoordinatorMessage) {
        match &message {
            CoordinatorMessage::World(world) => {
                self.check_majority(world);
                self.check_backends(world);
                self.law.announced(world, &self.config);
                if let Some((_, enlisted)) = self.heard_of.get_mut(&stream) {
                    *enlisted = false;
                }
                let meeting = || Meeting::new(world.clone());
                self.meetings.entry(world.generation).or_insert_with(meeting);
                self.check_newest_state(world.start.step.0);
            }
            CoordinatorMessage::Plan(window) => self.law.planned(window),
            CoordinatorMessage::CommunicatorIds(ids) => self.law.communicators(ids),
            CoordinatorMessage::Welcome(_)
            | CoordinatorMessage::Abort(_)
            | CoordinatorMessage::Stop(_)
            | CoordinatorMessage::Dismiss(_)
            | CoordinatorMessage::Save(_)
            | CoordinatorMessage::Dump(_) => {}
        }
        let Some(conn) = self.streams.get_mut(&stream) else { return };
        let at = conn.arrival(Way::Down, self.now, &mut self.dice);
        self.at(at, Happening::Down(stream, Box::new(message)));
    }

    fn kill_coordinator(&mut self) {
        self.core = None;
        let streams: Vec<_> = self.streams.keys().copied().collect();
        for stream in streams {
            self.cut(stream);
        }
        let down = if self.dice.one_in(4) { self.dice.ms(0, 8000) } else { self.dice.ms(10, 500) };
        self.after(down, Happening::CoordinatorStarts);
    }

    // Streams.

    fn alive(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_some_and(|stream| !stream.dead)
    }

    /// Breaks a stream; both sides notice a little later.
    fn cut(&mut self, stream: u64) {
        let Some(broken) = self.streams.get_mut(&stream) else { return };
        broken.dead = true;
        let (up, down) = (self.dice.ms(0, 50), self.dice.ms(0, 50));
        self.after(up, Happening::UpBroken(stream));
        self.after(down, Happening::DownBroken(stream));
    }

    fn lose_stream(&mut self, stream: u64) {
        let Some(lost) = self.streams.remove(&stream) else { return };
        let Some(process) = self.machines[lost.machine].process.as_mut() else { return };
        if process.stream.is_some_and(|(theirs, _)| theirs == stream) {
            process.stream = None;
            let pause = self.dice.ms(20, 400);
            self.after(pause, Happening::Wake(lost.machine));
        }
    }

    fn closed(&mut self, stream: u64, refusal: Option<&Refusal>) {
        let Some(closed) = self.streams.get(&stream) else { return };
        let machine = closed.machine;
        if matches!(refusal, Some(Refusal::Mismatch(_))) && self.stream_of(machine) == Some(stream)
        {
            self.end_process(machine);
        }
        self.lose_stream(stream);
    }

    // Processes.

    fn wake(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if machine.process.is_none() {
            self.processes += 1;
            let slot = self.fixed.then(|| Slot(u32::try_from(index).expect("few machines")));
            let uid = format!("w{}", self.processes);
            let odd = self.faults.contains(&self.now) && self.dice.one_in(16);
            let backend = if odd { OTHER_NCCL } else { self.backend };
            self.backends.insert(uid.clone(), backend);
            machine.process = Some(Process::new((uid, slot), backend, machine.disk));
        }
        let Some(process) = machine.process.as_mut() else { return };
        if process.stream.is_some() {
            return;
        }
        if process.frozen_until > self.now {
            let thaw = process.frozen_until;
            return self.at(thaw, Happening::Wake(index));
        }
        self.next_stream += 1;
        let id = self.next_stream;
        process.stream = Some((id, false));
        let hello = Box::new(process.hello());
        let mut stream = Stream::new(index);
        let at = stream.arrival(Way::Up, self.now, &mut self.dice);
        self.streams.insert(id, stream);
        self.at(at, Happening::Hello(id, hello));
    }

    /// Says what it has to say, if it may. Reports now and then come a second time, late.
    fn speak(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let Some(process) = machine.process.as_mut() else { return };
        machine.disk = process.saved.take().or(machine.disk);
        let Some((id, true)) = process.stream else { return };
        let words = std::mem::take(&mut process.words);
        for word in words {
            let Some(stream) = self.streams.get_mut(&id) else { return };
            let at = stream.arrival(Way::Up, self.now, &mut self.dice);
            if matches!(word, WorkerMessage::Reports(_)) && self.dice.one_in(8) {
                let late = at + self.dice.ms(0, 2000);
                self.at(late, Happening::Up(id, Box::new(word.clone())));
            }
            self.at(at, Happening::Up(id, Box::new(word)));
        }
    }

    fn beat(&mut self, index: usize) {
        self.after(HEARTBEAT, Happening::Beat(index));
        let now = self.now;
        let Some(process) = self.machines[index].process.as_mut() else { return };
        if process.frozen_until > now {
            return;
        }
        if process.stream.is_some_and(|(_, welcomed)| welcomed) {
            let heartbeat = process.heartbeat(now);
            process.words.push(WorkerMessage::Heartbeat(heartbeat));
        }
        self.speak(index);
    }

    fn hear(&mut self, stream: u64, message: Box<CoordinatorMessage>) {
        if !self.alive(stream) {
            return;
        }
        let index = self.streams[&stream].machine;
        let Some(process) = self.machines[index].process.as_mut() else { return };
        if process.stream.is_none_or(|(theirs, _)| theirs != stream) {
            return;
        }
        if process.frozen_until >= self.now {
            // So that what arrives at that very instant does not overtake what waits.
            let thaw = process.frozen_until + Duration::from_nanos(1);
            return self.at(thaw, Happening::Down(stream, message));
        }
        process.hear(*message);
        self.follow(index);
    }

    /// What comes of what a process has just done.
    fn follow(&mut self, index: usize) {
        self.speak(index);
        let process = self.machines[index].process.as_ref();
        if process.is_some_and(|process| process.over) {
            self.end_process(index);
        }
    }

    fn end_process(&mut self, index: usize) {
        let Some(process) = self.machines[index].process.take() else { return };
        let stream = process.stream.map(|(stream, _)| stream);
        if let Some(stream) = stream
            && let Some(ended) = self.streams.get_mut(&stream)
        {
            // What is under way still arrives, and then the end of the stream.
            let at = ended.arrival(Way::Up, self.now, &mut self.dice);
            self.at(at, Happening::UpBroken(stream));
        }
        let pause = self.dice.ms(100, 4000);
        self.after(pause, Happening::Wake(index));
    }

    fn work(&mut self, index: usize) {
        let pause = self.dice.ms(20, 160);
        self.after(pause, Happening::Work(index));
        let now = self.now;
        let Some(process) = self.machines[index].process.as_mut() else { return };
        let Some(part) = &process.world else { return };
        if process.frozen_until > now || process.stuck_until > now {
            return;
        }
        let (generation, cursor) = (part.generation, process.held.map_or(0, |held| held.cursor));
        let meeting = self.meetings.get_mut(&generation).expect("it was announced");
        let whole_before = meeting.whole().count();
        let applied = process.work(meeting, now, &mut self.dice);
        if meeting.whole().count() > whole_before {
            *self.batches.entry(cursor).or_default() += 1;
        }
        if let Some(held) = process.held {
            self.law.holds(held);
        }
        if !applied {
            self.notice_absent(index);
        }
        self.follow(index);
    }

    /// A rank that waits for one that has left the world notices it sooner or later.
    fn notice_absent(&mut self, index: usize) {
        let Some(process) = &self.machines[index].process else { return };
        let Some(part) = &process.world else { return };
        let generation = part.generation;
        let members = &self.meetings[&generation].world.members;
        let is_in = |uid: &str| {
            let mut processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
            // One that has not heard of the world yet may still come.
            processes.any(|p| p.uid == uid && (p.is_in(generation) || p.may_enter(generation)))
        };
        let absent = members.iter().position(|member| !is_in(&member.worker.0));
        let Some(absent) = absent.filter(|_| self.dice.one_in(5)) else { return };
        let culprit = Rank(u32::try_from(absent).expect("a small world"));
        let process = self.machines[index].process.as_mut().expect("it was just there");
        process.leave_world(WorldEnd::Failed, Some(culprit));
    }
}

/// A run of some shape.
fn shape(dice: &mut Dice, world: u32) -> RunConfig {
    let mut config = config(world);
    config.schedule.steps = STEPS;
    config.run.min_world = dice.small(1, world);
    config.run.max_world = dice.small(world, 4);
    let control = &mut config.control;
    control.last_call_ms = dice.small(50, 1000);
    control.cold_call_ms = dice.small(100, 2000);
    control.progress_ms = 5000;
    control.cooldown_ms = if dice.one_in(2) { 0 } else { 1000 };
    control.readopt_ms = 5000;
    config
}
