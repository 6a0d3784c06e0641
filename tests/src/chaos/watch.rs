//! What is seen from the beginning of one fault until training is calm again.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::arena::{Place, unix_ms};
use super::fault::Fault;
use super::ordeal::{CALM, now};
use super::report::Measured;

/// Between two questions to the coordinator.
const ASK: Duration = Duration::from_millis(250);

/// What is seen from the beginning of one fault.
#[derive(Debug)]
pub(super) struct Watch {
    fault: Fault,
    second: Option<Fault>,
    started: Instant,
    started_ms: u64,
    before: Place,
    now: Place,
    /// When the newest step was seen.
    moved: Instant,
    asked: Instant,
    longest_pause: Duration,
    pub(super) noticed: Option<Duration>,
    left: Option<Duration>,
    again: Option<Duration>,
    /// Where training was when the fault was over and training went on.
    calm_from: Option<Place>,
}

impl Watch {
    pub(super) fn start(fault: Fault, second: Option<Fault>, before: Place) -> Self {
        let now = now();
        Self {
            fault,
            second,
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

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn see(&mut self, place: Place) {
        self.longest_pause = self.longest_pause.max(self.moved.elapsed());
        if place > self.now {
            self.now = place;
            self.moved = now();
        }
        if place.generation > self.before.generation {
            self.again = self.again.or(Some(self.elapsed()));
        }
    }

    pub(super) fn asks(&mut self) -> bool {
        let due = self.asked.elapsed() >= ASK;
        if due {
            self.asked = now();
        }
        due
    }

    /// Looks for the first sign that the coordinator knows.
    pub(super) fn notice(&mut self, events: &[Value]) {
        let signs = ["worker_left", "world_aborted", "world_stopped"];
        let sign = events.iter().find(|event| {
            let what = event["what"].as_str().unwrap_or_default();
            signs.contains(&what) && event["unix_ms"].as_u64() >= Some(self.started_ms)
        });
        let at = sign.and_then(|event| event["unix_ms"].as_u64());
        self.noticed = at.map(|at| Duration::from_millis(at - self.started_ms));
    }

    pub(super) fn all_left(&mut self) {
        self.left = self.left.or(Some(self.elapsed()));
    }

    /// Whether the fault is over and training went on for a while without trouble.
    pub(super) fn is_over(&mut self, healed: bool) -> bool {
        let recovered = self.again.is_some() || !self.must_break_the_world();
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

    /// A member that is cut off may keep its place if the coordinator is started again meanwhile, which gives it time to come back.
    fn must_break_the_world(&self) -> bool {
        let mut faults = [Some(self.fault), self.second].into_iter().flatten();
        (self.fault, self.second) != (Fault::CoordinatorCutOff, Some(Fault::CoordinatorKilled))
            && faults.any(Fault::breaks_the_world)
    }

    pub(super) fn measured(self, slot: usize) -> Measured {
        let Self { fault, second, noticed, left, again, longest_pause: pause, .. } = self;
        let broken = again.and(noticed);
        let aborted = broken.zip(left).map(|(noticed, left)| left.saturating_sub(noticed));
        Measured { fault, second, slot, noticed: broken, aborted, again, pause }
    }
}
