//! Many random runs of the machine, with delayed messages, lost workers and impatient operators, against its
//! invariants.
//!
//! More of them: `SIM_SEEDS=100000 cargo test -p lockstep-core --test simulation`.
//! Replay one failure: the same with `SIM_SEED=1234`.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use lockstep_core::{Core, Effect, Event, SessionId};
use lockstep_proto::ids::{Digest, Generation, Step, WorkerUid};
use lockstep_proto::{
    CheckpointWritten, CoordinatorMessage, OperatorCommand, Phase, StepPlan, StepReport, Stop,
    WorkerMessage, World, WorldEnd,
};
use support::{TOTAL_STEPS, config, core, ended, enlist, hello_at, report, reports, state};

const WORKERS: u32 = 3;
const TURNS: u64 = 400;

#[test]
fn worlds_are_unique_growing_and_whole_under_any_churn() {
    for seed in seeds() {
        let mut run = Run::new(seed);
        run.churn();
    }
}

#[test]
fn progress_resumes_after_the_faults_stop() {
    for seed in seeds() {
        let mut run = Run::new(seed);
        run.churn();
        if run.core.status().phase == Phase::Failed {
            assert!(run.core.explain().contains("without a step"), "seed {seed}");
            continue;
        }
        run.ask(&OperatorCommand::Resume);
        let failure_in_flight = run.failure_in_flight();
        run.settle();
        assert!(run.over, "seed {seed}: {}", run.core.explain());
        let phase = run.core.status().phase;
        let fine = match phase {
            Phase::Complete => true,
            Phase::Stopping => run.stop_asked,
            // The third failure in a row was on its way when the faults stopped.
            Phase::Failed => failure_in_flight,
            Phase::Forming | Phase::Running | Phase::Paused => false,
        };
        assert!(fine, "seed {seed}: {}", run.core.explain());
    }
}

/// One worker process, as far as the machine can tell.
#[derive(Debug)]
struct Worker {
    session: u64,
    /// Steps that its state holds; `None`: it has none.
    held: Option<u64>,
    world: Option<(Generation, u64)>,
    /// World that it was asked to stop.
    stop: Option<Generation>,
    /// First step that is not planned.
    planned: u64,
    to_core: VecDeque<WorkerMessage>,
    from_core: VecDeque<CoordinatorMessage>,
}

/// The machine, its workers and everything it has promised so far.
struct Run {
    seed: u64,
    dice: Dice,
    core: Core,
    now: Duration,
    sessions: u64,
    /// By slot.
    workers: BTreeMap<u32, Worker>,
    /// Members of the live world; emptied as they are told or say that it is over.
    live: Option<World>,
    in_live: Vec<u64>,
    last_generation: Generation,
    plans: BTreeMap<Step, StepPlan>,
    /// Where the ranks of a world have agreed to stop.
    edges: BTreeMap<Generation, u64>,
    paused: bool,
    stop_asked: bool,
    over: bool,
    drained: BTreeSet<WorkerUid>,
}

/// Whatever the reason, a failing seed is told.
impl Drop for Run {
    #[expect(clippy::print_stderr, reason = "a failing test tells how to repeat it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SIM_SEED={}", self.seed);
        }
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            dice: Dice(seed),
            core: core(WORKERS),
            now: Duration::ZERO,
            sessions: 0,
            workers: BTreeMap::new(),
            live: None,
            in_live: Vec::new(),
            last_generation: Generation(0),
            plans: BTreeMap::new(),
            edges: BTreeMap::new(),
            paused: false,
            stop_asked: false,
            over: false,
            drained: BTreeSet::new(),
        }
    }

    /// Random joins, losses, failures, steps, deliveries and orders.
    fn churn(&mut self) {
        for _ in 0..TURNS {
            self.now += Duration::from_millis(self.dice.below(40));
            let slot = u32::try_from(self.dice.below(WORKERS.into())).expect("fewer than WORKERS");
            match self.dice.below(46) {
                0 => self.kill(slot),
                1 => self.fail(slot),
                2..=6 => self.start(slot),
                7..=18 => self.work(slot),
                19..=28 => self.deliver_to_core(slot),
                29..=38 => self.deliver_from_core(slot),
                39 => self.ask(&OperatorCommand::Pause),
                40..=42 => self.ask(&OperatorCommand::Resume),
                43 => self.ask(&OperatorCommand::Checkpoint),
                44 => self.drain_or_stop(slot),
                _ => self.apply(Event::Tick),
            }
        }
    }

    /// No more faults: everyone is here, works, and hears everything.
    fn settle(&mut self) {
        for _ in 0..40 * TOTAL_STEPS {
            for slot in 0..WORKERS {
                self.start(slot);
                self.work(slot);
                self.deliver_to_core(slot);
                self.deliver_from_core(slot);
            }
        }
    }

    fn failure_in_flight(&self) -> bool {
        self.workers.values().flat_map(|worker| &worker.to_core).any(|message| {
            matches!(message, WorkerMessage::WorldEnded(ended) if ended.reason == WorldEnd::Failed)
        })
    }

    fn start(&mut self, slot: u32) {
        if self.workers.contains_key(&slot) {
            return;
        }
        self.sessions += 1;
        let held = (self.dice.below(2) == 0).then_some(0);
        let worker = Worker {
            session: self.sessions,
            held,
            world: None,
            stop: None,
            planned: 0,
            to_core: VecDeque::new(),
            from_core: VecDeque::new(),
        };
        self.workers.insert(slot, worker);
        let hello = Box::new(hello_at(&format!("w{}", self.sessions), slot));
        self.apply(Event::Connected { session: SessionId(self.sessions), hello });
        self.enlist(slot);
    }

    fn kill(&mut self, slot: u32) {
        let Some(worker) = self.workers.remove(&slot) else { return };
        self.in_live.retain(|session| *session != worker.session);
        self.apply(Event::Lost { session: SessionId(worker.session), why: "killed".into() });
    }

    fn enlist(&mut self, slot: u32) {
        let worker = self.workers.get_mut(&slot).expect("it lives");
        worker.to_core.push_back(enlist(worker.held.map(state)));
    }

    fn fail(&mut self, slot: u32) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        if let Some((generation, _)) = worker.world.take() {
            worker.to_core.push_back(ended(generation.0, WorldEnd::Failed));
            self.enlist(slot);
        }
    }

    fn drain_or_stop(&mut self, slot: u32) {
        if self.dice.below(10) == 0 {
            return self.ask(&OperatorCommand::Stop);
        }
        let Some(worker) = self.workers.get(&slot) else { return };
        let uid = WorkerUid(format!("w{}", worker.session));
        self.ask(&OperatorCommand::Drain(uid.clone()));
        if !self.over {
            self.drained.insert(uid);
        }
    }

    /// Gives an order, twice: the second changes nothing.
    fn ask(&mut self, command: &OperatorCommand) {
        let seed = self.seed;
        match command {
            OperatorCommand::Pause => self.paused = true,
            OperatorCommand::Resume => self.paused = false,
            OperatorCommand::Stop => self.stop_asked = true,
            OperatorCommand::Checkpoint | OperatorCommand::Drain(_) => {}
        }
        let (effects, _) = self.core.operate(self.now, command.clone());
        self.perform(effects);
        let (again, _) = self.core.operate(self.now, command.clone());
        assert!(again.is_empty(), "seed {seed}: {command} is not idempotent: {again:?}");
    }

    /// The step behind which a world stops: no rank is further when the first one says that it wants to.
    fn edge(&mut self, generation: Generation, wants_stop: bool) -> Option<u64> {
        if wants_stop && !self.edges.contains_key(&generation) {
            let steps = self.workers.values().filter_map(|worker| worker.world);
            let newest = steps.filter(|(theirs, _)| *theirs == generation).map(|(_, step)| step);
            let edge = newest.max()? + 1;
            // Behind the last step there is nobody left to agree with.
            if edge <= TOTAL_STEPS {
                self.edges.insert(generation, edge);
            }
        }
        self.edges.get(&generation).copied()
    }

    /// Applies one planned step, or ends the world after the last.
    fn work(&mut self, slot: u32) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        let Some((generation, step)) = worker.world else { return };
        let wants_stop = worker.stop == Some(generation);
        let edge = self.edge(generation, wants_stop);
        let worker = self.workers.get_mut(&slot).expect("it lives");
        if edge == Some(step) {
            worker.world = None;
            worker.to_core.push_back(ended(generation.0, WorldEnd::Stopped));
            self.enlist(slot);
        } else if step == TOTAL_STEPS {
            worker.world = None;
            worker.to_core.push_back(ended(generation.0, WorldEnd::Complete));
            // As after every world: should another rank fail now, this one holds the last state.
            self.enlist(slot);
        } else if step < worker.planned {
            let done = StepReport { digest: Some(Digest(step)), ..report(step) };
            worker.to_core.push_back(reports(generation.0, vec![done]));
            worker.world = Some((generation, step + 1));
            worker.held = Some(step + 1);
        }
    }

    fn deliver_to_core(&mut self, slot: u32) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        let Some(message) = worker.to_core.pop_front() else { return };
        let session = worker.session;
        if matches!(message, WorkerMessage::WorldEnded(_)) {
            self.in_live.retain(|member| *member != session);
        }
        self.apply(Event::Message { session: SessionId(session), message });
    }

    fn deliver_from_core(&mut self, slot: u32) {
        let seed = self.seed;
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        match worker.from_core.pop_front() {
            Some(CoordinatorMessage::World(world)) => {
                assert_eq!(worker.world, None, "seed {seed}: a world inside a world");
                worker.world = Some((world.generation, world.start.step.0));
                worker.held = Some(world.start.step.0);
                worker.planned = world.start.step.0;
            }
            Some(CoordinatorMessage::Plan(window)) => {
                // A worker that has left its world meanwhile drops what crossed on the wire.
                let Some((generation, _)) = worker.world else { return };
                assert_eq!(window.generation, generation, "seed {seed}: another world's plan");
                assert_eq!(window.steps[0].step.0, worker.planned, "seed {seed}: a gap");
                worker.planned += window.steps.len() as u64;
            }
            Some(CoordinatorMessage::Abort(abort)) => {
                if worker.world.is_some_and(|(generation, _)| generation == abort.generation) {
                    self.fail(slot);
                }
            }
            Some(CoordinatorMessage::Dismiss(_)) => worker.world = None,
            Some(CoordinatorMessage::Stop(stop)) => worker.stop = Some(stop.generation),
            Some(CoordinatorMessage::Save(wanted)) => {
                if let Some((generation, step)) = worker.world.filter(|world| world.0 == wanted) {
                    let (state, path) = (state(step), String::new());
                    let written = CheckpointWritten { generation, state, path };
                    worker.to_core.push_back(WorkerMessage::CheckpointWritten(written));
                }
            }
            Some(CoordinatorMessage::Dump(_) | CoordinatorMessage::Welcome(_)) | None => {}
        }
    }

    /// Steps the machine, checks what it wants, and puts messages on their way.
    fn apply(&mut self, event: Event) {
        let effects = self.core.step(self.now, event);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Journal(generation) => self.check_journal(generation),
                Effect::Send { session, message } => self.send(session.0, message),
                Effect::Close { session, .. } => {
                    self.in_live.retain(|member| *member != session.0);
                    self.workers.retain(|_, worker| worker.session != session.0);
                }
                Effect::Finished(_) => self.over = true,
                Effect::Applied(_) | Effect::Noted(_) => {}
            }
        }
    }

    fn check_journal(&mut self, generation: Generation) {
        let seed = self.seed;
        assert!(generation > self.last_generation, "seed {seed}: generations must grow");
        assert!(!self.paused, "seed {seed}: a world forms in a pause");
        assert!(!self.over, "seed {seed}: a world forms behind the end");
        assert!(self.in_live.is_empty(), "seed {seed}: two live worlds: {:?}", self.in_live);
        self.last_generation = generation;
        self.live = None;
    }

    fn send(&mut self, session: u64, message: CoordinatorMessage) {
        let seed = self.seed;
        match &message {
            CoordinatorMessage::World(world) => self.check_world(session, world),
            CoordinatorMessage::Plan(window) => {
                assert_eq!(window.generation, self.last_generation, "seed {seed}: stale plan");
                assert!(self.in_live.contains(&session), "seed {seed}: a plan for a stranger");
                for plan in &window.steps {
                    let first = self.plans.entry(plan.step).or_insert(*plan);
                    assert_eq!(first, plan, "seed {seed}: two plans for one step");
                }
            }
            CoordinatorMessage::Abort(_) | CoordinatorMessage::Dismiss(_) => {
                self.in_live.retain(|member| *member != session);
            }
            CoordinatorMessage::Stop(Stop { generation, .. }) => {
                assert!(self.in_live.contains(&session), "seed {seed}: a stop for a stranger");
                assert_eq!(*generation, self.last_generation, "seed {seed}: a stale stop");
            }
            CoordinatorMessage::Save(generation) => {
                assert!(self.in_live.contains(&session), "seed {seed}: a stranger is to save");
                assert_eq!(*generation, self.last_generation, "seed {seed}: a stale order");
            }
            CoordinatorMessage::Dump(_) | CoordinatorMessage::Welcome(_) => {}
        }
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.session == session) {
            worker.from_core.push_back(message);
        }
    }

    fn check_world(&mut self, session: u64, world: &World) {
        let seed = self.seed;
        assert_eq!(world.generation, self.last_generation, "seed {seed}: not journaled");
        assert_eq!(world.members.len(), WORKERS as usize, "seed {seed}");
        let dealt: Vec<_> = world
            .members
            .iter()
            .flat_map(|member| member.lanes.first..member.lanes.first + member.lanes.count)
            .collect();
        let lanes: Vec<_> = (0..config(WORKERS).data.lanes).collect();
        assert_eq!(dealt, lanes, "seed {seed}: every lane once");
        let drained = world.members.iter().find(|member| self.drained.contains(&member.worker));
        assert_eq!(drained, None, "seed {seed}: a drained worker is back");
        let newest = self.workers.values().map(|worker| worker.held.unwrap_or(0)).max();
        assert_eq!(Some(world.start.step.0), newest, "seed {seed}: not the newest state");
        let source = &world.members[world.state_source.0 as usize];
        let holder = &self.workers[&source.slot.0];
        assert_eq!(holder.held.unwrap_or(0), world.start.step.0, "seed {seed}: wrong source");
        let receiver = &world.members[world.rank.0 as usize];
        assert_eq!(self.workers[&receiver.slot.0].session, session, "seed {seed}: wrong rank");
        match &self.live {
            Some(live) => assert_eq!(live.members, world.members, "seed {seed}: two versions"),
            None => self.live = Some(world.clone()),
        }
        self.in_live.push(session);
    }
}

/// A small generator, for tests that must repeat by seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn seeds() -> Vec<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let all = || (0..number("SIM_SEEDS").unwrap_or(5000)).collect();
    number("SIM_SEED").map_or_else(all, |seed| vec![seed])
}
