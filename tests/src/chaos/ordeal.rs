//! Fault after fault over one run, each timed.

use std::time::{Duration, Instant};

use super::arena::{Arena, Place};
use super::audit::History;
use super::fault::{Fault, Victim};
use super::report::{Measured, Report};
use super::watch::Watch;

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

/// Workers that wait to take over.
const SPARES: usize = 1;

/// Steps that must follow a fault without trouble before the next.
pub(super) const CALM: u64 = 5;
/// The longest that training may take to go on.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at what the processes write.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// Between two moments at which a second fault may strike, counted from the first.
const SOON: Duration = Duration::from_millis(60);

/// A fault that strikes before the run has recovered from another.
#[derive(Debug, Clone, Copy)]
struct Second {
    fault: Fault,
    slot: usize,
    /// From the beginning of the first.
    after: Duration,
}

/// A run under faults.
#[derive(Debug)]
pub struct Ordeal {
    arena: Arena,
    kinds: Vec<Fault>,
    dice: Dice,
    /// The first event that was not looked at.
    next_event: u64,
    rows: Vec<Measured>,
}

impl Ordeal {
    /// Starts a run and waits for its first steps.
    pub fn start(seed: u64) -> Self {
        Self::with(seed, &Fault::ALL, &[])
    }

    /// The same with the fake NCCL between the ranks, whose connections nothing here can cut.
    pub fn start_with_nccl(seed: u64) -> Self {
        let mut kinds = Fault::ALL.to_vec();
        kinds.retain(|kind| *kind != Fault::PeersCutOff);
        Self::with(seed, &kinds, &["collective.backend=nccl"])
    }

    fn with(seed: u64, kinds: &[Fault], more: &[&str]) -> Self {
        let mut arena = Arena::start(SPARES, &[&SETTINGS, more].concat());
        wait_for_steps(&mut arena, Place { generation: 1, step: CALM });
        Self { arena, kinds: kinds.to_vec(), dice: Dice(seed), next_event: 0, rows: Vec::new() }
    }

    /// How many kinds of faults it knows.
    pub fn kinds(&self) -> usize {
        self.kinds.len()
    }

    /// Every kind of fault once, in random order, and random ones after that, until there were so many. `show` sees each.
    pub fn run(mut self, faults: usize, mut show: impl FnMut(usize, &Measured)) -> Report {
        let mut kinds = Vec::new();
        for number in 1..=faults {
            if kinds.is_empty() {
                kinds.clone_from(&self.kinds);
            }
            let fault = kinds.swap_remove(self.dice.below(kinds.len()));
            let slot = self.pick(fault);
            let second = self.second(fault, slot);
            let row = self.endure(fault, slot, second);
            show(number, &row);
            self.rows.push(row);
        }
        Report { rows: self.rows, history: self.arena.stop() }
    }

    /// Somebody whom the fault concerns. Ranks follow slots.
    fn pick(&mut self, fault: Fault) -> usize {
        let members = self.arena.members();
        let candidates = match fault.strikes() {
            Victim::Anybody => members.len(),
            Victim::First => 1,
            Victim::NotTheLast => members.len() - 1,
        };
        members[self.dice.below(candidates)]
    }

    /// For every other fault: what strikes another member before the run has recovered from it.
    fn second(&mut self, fault: Fault, slot: usize) -> Option<Second> {
        if !fault.may_be_joined() || self.dice.below(2) == 0 {
            return None;
        }
        let mut others = self.arena.members();
        others.retain(|other| *other != slot);
        let kind = Fault::SUDDEN[self.dice.below(Fault::SUDDEN.len())];
        let after = SOON * u32::try_from(self.dice.below(10)).expect("below 10");
        Some(Second { fault: kind, slot: others[self.dice.below(others.len())], after })
    }

    fn endure(&mut self, fault: Fault, slot: usize, mut second: Option<Second>) -> Measured {
        let members = self.arena.members();
        let before = self.arena.look();
        let left: Vec<usize> = self.arena.seats.iter().map(|seat| seat.left).collect();
        let struck = [Some(slot), second.map(|second| second.slot)];
        let mut watch = Watch::start(fault, second.map(|second| second.fault), before);
        fault.begin(&self.arena, slot);
        let length = fault.lasts();
        let mut healed = false;
        while !watch.is_over(healed && second.is_none()) {
            pause(LOOK);
            if let Some(due) = second.take_if(|second| watch.elapsed() >= second.after) {
                due.fault.begin(&self.arena, due.slot);
            }
            if !healed && watch.elapsed() >= length {
                fault.end(&self.arena, slot);
                healed = true;
            }
            self.arena.tend();
            let now = self.arena.look();
            watch.see(now);
            if watch.noticed.is_none() && watch.asks() {
                watch.notice(&self.arena.events(self.next_event));
            }
            let mut others = members.iter().filter(|other| !struck.contains(&Some(**other)));
            if others.all(|other| self.arena.seats[*other].left > left[*other]) {
                watch.all_left();
            }
            assert!(watch.elapsed() < PATIENCE + length, "{}", self.stuck(&watch));
        }
        let (worker, coordinator) = (self.arena.said(slot), self.arena.coordinator_said());
        assert!(fault.left_its_trace(&worker, &coordinator), "{fault}: {worker}\n{coordinator}");
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
        let workers: Vec<String> = (0..self.arena.seats.len())
            .map(|slot| format!("worker {slot}:\n{}", end(self.arena.said(slot))))
            .collect();
        let coordinator = end(self.arena.coordinator_said());
        format!("stuck: {watch:?}\ncoordinator:\n{coordinator}\n{}", workers.join("\n"))
    }
}

/// The history of a run without faults up to a step, or a little beyond.
pub(super) fn undisturbed(step: u64) -> History {
    let mut arena = Arena::start(0, &SETTINGS);
    wait_for_steps(&mut arena, Place { generation: 1, step });
    arena.stop()
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

/// Numbers that depend on the seed only (`SplitMix64`).
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
