//! A coordinator that is killed and started again, over and over: does training notice?

use std::fmt;
use std::time::Duration;

use super::arena::{Arena, Place, WORLD};
use super::audit::History;
use super::ordeal::{CALM, LOOK, PATIENCE, SETTINGS, now, pause, wait_for_steps};

/// How long training is watched with the coordinator, and how long without.
const INTERVAL: Duration = Duration::from_millis(700);

/// What was seen.
#[derive(Debug)]
pub struct Restarts {
    /// Milliseconds per step while the coordinator was there, and while it was away; one each per restart.
    pub step_ms: [Vec<f64>; 2],
    /// The longest time between two steps from each kill until the coordinator was back.
    pub longest_pause: Duration,
    /// The last world: 1, unless one was lost.
    pub generation: u64,
    /// What the applied logs show.
    pub history: History,
}

impl Restarts {
    /// Kills the coordinator so many times.
    pub fn endure(times: usize) -> Self {
        let mut arena = Arena::start(0, &SETTINGS);
        let at = Place { generation: 1, step: CALM };
        wait_for_steps(&mut arena, at);
        let mut step_ms = [Vec::new(), Vec::new()];
        let mut longest_pause = Duration::ZERO;
        for restarts in 1..=times {
            let (with, _) = pace(&mut arena);
            arena.signal_coordinator("KILL");
            let (without, gap) = pace(&mut arena);
            step_ms[0].push(with);
            step_ms[1].push(without);
            longest_pause = longest_pause.max(gap);
            arena.tend();
            wait_for_adoption(&mut arena, restarts);
        }
        let generation = arena.look().generation;
        Self { step_ms, longest_pause, generation, history: arena.stop() }
    }

    /// The middle of each: with and without a coordinator.
    pub fn medians(&self) -> [f64; 2] {
        self.step_ms.each_ref().map(|times| {
            let mut times = times.clone();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
    }
}

/// Milliseconds per step, and the longest time between two.
fn pace(arena: &mut Arena) -> (f64, Duration) {
    let first = arena.look();
    let (started, mut moved) = (now(), now());
    let (mut at, mut longest) = (first, Duration::ZERO);
    while started.elapsed() < INTERVAL {
        pause(LOOK);
        longest = longest.max(moved.elapsed());
        let newest = arena.look();
        if newest > at {
            (at, moved) = (newest, now());
        }
    }
    let steps = u32::try_from(at.step.saturating_sub(first.step)).expect("few steps");
    (started.elapsed().as_secs_f64() * 1e3 / f64::from(steps.max(1)), longest)
}

/// Waits until every worker has come back to the new coordinator.
fn wait_for_adoption(arena: &mut Arena, restarts: usize) {
    let started = now();
    while (0..WORLD).any(|slot| arena.said(slot).matches("the world goes on").count() < restarts) {
        arena.tend();
        pause(LOOK);
        assert!(started.elapsed() < PATIENCE, "not adopted: {}", arena.coordinator_said());
    }
}

impl fmt::Display for Restarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [with, without] = self.medians();
        let History { redone, lost, doubled, .. } = self.history;
        write!(f, "coordinator killed {} times: ", self.step_ms[0].len())?;
        write!(f, "{with:.1} ms a step with it, {without:.1} ms without, ")?;
        write!(f, "longest pause {:.0} ms, ", self.longest_pause.as_secs_f64() * 1e3)?;
        write!(f, "generation {} at the end, {redone} batches redone, ", self.generation)?;
        write!(f, "{lost} samples lost, {doubled} doubled")
    }
}
