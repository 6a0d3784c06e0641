//! Fault after fault over one run, each timed.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::arena::{Arena, Disk, Place, WORLD, unix_ms};
use super::audit::History;
use super::fault::Fault;
use super::proxy::Network;

/// What the run is told: steps that do not end, and leases short enough for many faults.
pub(super) const SETTINGS: [&str; 10] = [
    "schedule.steps=1000000",
    "schedule.base_learning_rate=0.01",
    "checkpoint.every_steps=100",
    "control.plan_window=256",
    "control.heartbeat_ms=250",
    "control.lease_ms=1500",
    "control.progress_ms=2000",
    "control.cooldown_ms=0",
    "control.digest_every=5",
    "collective.timeout_s=2",
];

/// Longer than the lease, the progress lease and the patience of a collective.
const LONG: Duration = Duration::from_millis(3500);
/// How long a fault that nobody should mind lasts.
const SHORT: Duration = Duration::from_millis(1500);
/// Steps that must follow a fault without trouble before the next.
pub(super) const CALM: u64 = 5;
/// The longest that training may take to go on.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what the processes write.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// Between two questions to the coordinator.
const ASK: Duration = Duration::from_millis(250);

/// One fault and what came of it, from the moment that it began.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which.
    pub fault: Fault,
    /// Whom it struck.
    pub slot: usize,
    /// Until the coordinator knew (by its events); none: it had no reason to act.
    pub noticed: Option<Duration>,
    /// From then on, until the other members of the world had left it.
    pub aborted: Option<Duration>,
    /// Until the first step of the next world.
    pub again: Option<Duration>,
    /// The longest time without a step.
    pub pause: Duration,
}

/// A run under faults.
#[derive(Debug)]
pub struct Ordeal {
    arena: Arena,
    dice: Dice,
    /// The first event that was not looked at.
    next_event: u64,
    rows: Vec<Measured>,
}

/// What came of all faults.
#[derive(Debug)]
pub struct Report {
    /// One per fault, in order.
    pub rows: Vec<Measured>,
    /// What the applied logs show.
    pub history: History,
}

impl Ordeal {
    /// Starts a run and waits for its first steps.
    pub fn start(seed: u64) -> Self {
        let mut arena = Arena::start(&SETTINGS);
        wait_for_steps(&mut arena, Place { generation: 1, step: CALM });
        Self { arena, dice: Dice(seed), next_event: 0, rows: Vec::new() }
    }

    /// Every kind of fault once, in random order, and random ones after that, until there were so many. `show` sees each.
    pub fn run(mut self, faults: usize, mut show: impl FnMut(usize, &Measured)) -> Report {
        let mut kinds = Fault::ALL.to_vec();
        for number in 1..=faults {
            if kinds.is_empty() {
                kinds = Fault::ALL.to_vec();
            }
            let fault = kinds.swap_remove(self.dice.below(kinds.len()));
            let slot = self.dice.below(WORLD);
            let row = self.endure(fault, slot);
            show(number, &row);
            self.rows.push(row);
        }
        Report { rows: self.rows, history: self.arena.stop() }
    }

    fn endure(&mut self, fault: Fault, slot: usize) -> Measured {
        let slot = match fault {
            Fault::DiskFull => 0,                      // the rank that writes
            Fault::PeersCutOff => slot.min(WORLD - 2), // the last is dialled by nobody
            _ => slot,
        };
        let before = self.arena.look();
        let left: Vec<usize> = self.arena.seats.iter().map(|seat| seat.left).collect();
        let mut watch = Watch::start(fault, before);
        let length = begin(&mut self.arena, fault, slot);
        let mut healed = false;
        while !watch.is_over(healed) {
            pause(LOOK);
            if !healed && watch.elapsed() >= length {
                end(&self.arena, fault, slot);
                healed = true;
            }
            self.arena.tend();
            let now = self.arena.look();
            watch.see(now);
            if watch.noticed.is_none() && watch.asks() {
                watch.notice(&self.arena.events(self.next_event));
            }
            let others = self.arena.seats.iter().zip(&left).enumerate();
            if others.clone().all(|(other, (seat, left))| other == slot || seat.left > *left) {
                watch.all_left();
            }
            assert!(watch.elapsed() < PATIENCE + length, "{}", self.stuck(&watch));
        }
        let events = self.arena.events(self.next_event);
        watch.notice(&events);
        let last = events.last().and_then(|event| event["sequence"].as_u64());
        self.next_event = last.map_or(self.next_event, |last| last + 1);
        watch.measured(slot)
    }

    fn stuck(&self, watch: &Watch) -> String {
        let end = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(15)..].join("\n")
        };
        let workers: Vec<String> = (0..WORLD)
            .map(|slot| format!("worker {slot}:\n{}", end(self.arena.said(slot))))
            .collect();
        let coordinator = end(self.arena.coordinator_said());
        format!("stuck: {watch:?}\ncoordinator:\n{coordinator}\n{}", workers.join("\n"))
    }
}

/// The history of a run without faults up to a step, or a little beyond.
pub fn undisturbed(step: u64) -> History {
    let mut arena = Arena::start(&SETTINGS);
    wait_for_steps(&mut arena, Place { generation: 1, step });
    arena.stop()
}

/// What is seen from the beginning of one fault.
#[derive(Debug)]
struct Watch {
    fault: Fault,
    started: Instant,
    started_ms: u64,
    before: Place,
    now: Place,
    /// When the newest step was seen.
    moved: Instant,
    asked: Instant,
    longest_pause: Duration,
    noticed: Option<Duration>,
    left: Option<Duration>,
    again: Option<Duration>,
    /// Where training was when the fault was over and training went on.
    calm_from: Option<Place>,
}

impl Watch {
    fn start(fault: Fault, before: Place) -> Self {
        let now = now();
        Self {
            fault,
            started: now,
            started_ms: unix_ms(),
            before,
            now: before,
            moved: now,
            asked: now,
            longest_pause: Duration::ZERO,
            noticed: None,
            left: None,
            again: None,
            calm_from: None,
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn see(&mut self, place: Place) {
        self.longest_pause = self.longest_pause.max(self.moved.elapsed());
        if place > self.now {
            self.now = place;
            self.moved = now();
        }
        if place.generation > self.before.generation {
            self.again = self.again.or(Some(self.elapsed()));
        }
    }

    fn asks(&mut self) -> bool {
        let due = self.asked.elapsed() >= ASK;
        if due {
            self.asked = now();
        }
        due
    }

    /// Looks for the first sign that the coordinator knows.
    fn notice(&mut self, events: &[Value]) {
        let signs = ["worker_left", "world_aborted", "world_stopped"];
        let sign = events.iter().find(|event| {
            let what = event["what"].as_str().unwrap_or_default();
            signs.contains(&what) && event["unix_ms"].as_u64() >= Some(self.started_ms)
        });
        let at = sign.and_then(|event| event["unix_ms"].as_u64());
        self.noticed = at.map(|at| Duration::from_millis(at - self.started_ms));
    }

    fn all_left(&mut self) {
        self.left = self.left.or(Some(self.elapsed()));
    }

    /// Whether the fault is over and training went on for a while without trouble.
    fn is_over(&mut self, healed: bool) -> bool {
        let recovered = self.again.is_some() || !self.fault.breaks_the_world();
        if !healed || !recovered {
            return false;
        }
        let from = *self.calm_from.get_or_insert(self.now);
        if from.generation != self.now.generation {
            self.calm_from = Some(self.now);
            return false;
        }
        self.now.step >= from.step + CALM
    }

    fn measured(self, slot: usize) -> Measured {
        let Self { fault, noticed, left, again, longest_pause: pause, .. } = self;
        let broken = again.and(noticed);
        let aborted = broken.zip(left).map(|(noticed, left)| left.saturating_sub(noticed));
        Measured { fault, slot, noticed: broken, aborted, again, pause }
    }
}

/// Begins a fault; how long it lasts.
fn begin(arena: &mut Arena, fault: Fault, slot: usize) -> Duration {
    match fault {
        Fault::WorkerKilled => arena.signal(slot, "KILL"),
        Fault::WorkerLeaves => arena.signal(slot, "TERM"),
        Fault::CoordinatorKilled => arena.signal_coordinator("KILL"),
        Fault::BitFlips => arena.failpoint(slot, "flip", "online_running"),
        Fault::WorkerFrozen => arena.signal(slot, "STOP"),
        Fault::WorkerStuck => {
            arena.failpoint(slot, "stall", &LONG.as_millis().to_string());
            return LONG;
        }
        Fault::CoordinatorCutOff => arena.network(slot, Network::Cut, Network::Fine),
        Fault::PeersCutOff => arena.network(slot, Network::Fine, Network::Cut),
        Fault::NetworkSlow => {
            let slow = Network::Slow(Duration::from_millis(2));
            arena.network(slot, slow, slow);
        }
        Fault::DiskFull => {
            arena.machine(slot, 0, Disk::Full);
            arena.operate(&["checkpoint"]);
        }
        Fault::ClockJumps => {
            arena.machine(slot, if slot % 2 == 0 { 3600 } else { -3600 }, Disk::Fine)
        }
    }
    match fault {
        Fault::WorkerFrozen | Fault::CoordinatorCutOff | Fault::PeersCutOff => LONG,
        Fault::NetworkSlow | Fault::DiskFull | Fault::ClockJumps => SHORT,
        _ => Duration::ZERO,
    }
}

/// Ends it.
fn end(arena: &Arena, fault: Fault, slot: usize) {
    match fault {
        Fault::WorkerFrozen => arena.signal(slot, "CONT"),
        Fault::CoordinatorCutOff | Fault::PeersCutOff | Fault::NetworkSlow => {
            arena.network(slot, Network::Fine, Network::Fine);
        }
        Fault::DiskFull | Fault::ClockJumps => arena.machine(slot, 0, Disk::Fine),
        Fault::WorkerKilled
        | Fault::WorkerLeaves
        | Fault::WorkerStuck
        | Fault::CoordinatorKilled
        | Fault::BitFlips => {}
    }
}

/// Waits until training is at a place or beyond.
pub(super) fn wait_for_steps(arena: &mut Arena, place: Place) {
    let (mut moved, mut at) = (now(), arena.look());
    while at < place {
        arena.tend();
        pause(LOOK);
        let newest = arena.look();
        if newest > at {
            (at, moved) = (newest, now());
        }
        let said = || format!("{}\n{}", arena.coordinator_said(), arena.said(0));
        assert!(moved.elapsed() < PATIENCE, "stuck at {at:?}: {}", said());
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |time: Option<Duration>| {
            time.map_or("–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        let Self { fault, slot, noticed, aborted, again, pause } = self;
        write!(f, "{fault:21} slot {slot}  noticed {:>7}  ", show(*noticed))?;
        write!(f, "aborted {:>7}  again {:>7}  ", show(*aborted), show(*again))?;
        write!(f, "longest pause {:>7}", show(Some(*pause)))
    }
}

impl Report {
    /// Runs the same steps without faults; how many led to another state.
    pub fn differing_steps(&self) -> usize {
        let other = undisturbed(self.history.last_step());
        let digests = self.history.digests.iter();
        digests.filter(|(step, digest)| other.digests.get(step) != Some(digest)).count()
    }

    /// The rows of one kind.
    pub fn of(&self, fault: Fault) -> impl Iterator<Item = &Measured> {
        self.rows.iter().filter(move |row| row.fault == fault)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| fault | times | noticed | aborted | training again | longest pause |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for fault in Fault::ALL {
            let rows: Vec<_> = self.of(fault).collect();
            if rows.is_empty() {
                continue;
            }
            let median = |of: fn(&Measured) -> Option<Duration>| {
                median(rows.iter().filter_map(|row| of(row)).collect())
                    .map_or("–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
            };
            writeln!(
                f,
                "| {fault} | {} | {} | {} | {} | {} |",
                rows.len(),
                median(|row| row.noticed),
                median(|row| row.aborted),
                median(|row| row.again),
                median(|row| Some(row.pause)),
            )?;
        }
        let History { redone, lost, doubled, .. } = self.history;
        write!(f, "{} steps, {redone} batches redone, ", self.history.last_step() + 1)?;
        write!(f, "{lost} samples lost, {doubled} doubled")
    }
}

/// The middle one.
fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Numbers that depend on the seed only (SplitMix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
    }
}

#[expect(clippy::disallowed_methods, reason = "what this measures")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "processes can only be polled")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
