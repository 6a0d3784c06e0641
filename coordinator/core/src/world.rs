//! The ranks that train together.

use std::ops::Range;

use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Generation, Rank, Step};
use lockstep_proto::{LaneRange, Member, Secret, TrainingState, World, WorldEnd};
use sha2::{Digest as _, Sha256};

use crate::digests::Digests;
use crate::event::SessionId;
use crate::lanes::deal_lanes;
use crate::plan::Feed;
use crate::roster::Roster;

/// A world from its announcement until all ranks have ended it.
#[derive(Debug)]
pub(crate) struct LiveWorld {
    pub(crate) generation: Generation,
    pub(crate) size: u32,
    pub(crate) lanes: Vec<LaneRange>,
    pub(crate) start: TrainingState,
    pub(crate) feed: Feed,
    pub(crate) digests: Digests,
    /// How the ranks ended that have ended.
    pub(crate) ends: Vec<WorldEnd>,
    /// Whether it was asked to end at a step edge.
    pub(crate) stopping: Option<Stopping>,
    /// Whether rank 0 was asked for a checkpoint that is not on disk yet.
    pub(crate) saving: bool,
    /// Newest step in flight that a member named.
    pub(crate) newest: Step,
}

/// A world's end at a step edge.
#[derive(Debug, Clone)]
pub(crate) struct Stopping {
    pub(crate) why: String,
    pub(crate) then: Then,
}

/// What comes after a world that was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The end of the run.
    End,
    /// Another world, once it may form.
    Form,
}

impl LiveWorld {
    pub(crate) fn new(world: &World, window: u32) -> Self {
        Self {
            generation: world.generation,
            size: u32::try_from(world.members.len()).expect("limited by `run.world`"),
            lanes: world.members.iter().map(|member| member.lanes).collect(),
            start: world.start,
            feed: Feed::new(world.start.step, window),
            digests: Digests::new(world.members.len()),
            ends: Vec::new(),
            stopping: None,
            saving: false,
            newest: world.start.step,
        }
    }

    /// Whether it has applied a step.
    pub(crate) fn progressed(&self) -> bool {
        self.newest > self.start.step
    }

    /// Steps whose plan was sent.
    pub(crate) fn planned(&self) -> Range<Step> {
        self.start.step..self.feed.next
    }

    /// Why the run ends with it, if it was asked to.
    pub(crate) fn ends_run(&self) -> Option<&str> {
        let stopping = self.stopping.as_ref().filter(|stopping| stopping.then == Then::End)?;
        Some(&stopping.why)
    }

    /// Whether every rank has left it.
    pub(crate) fn is_over(&self) -> bool {
        self.ends.len() == self.lanes.len()
    }
}

/// A world of everyone who has enlisted, as its first rank sees it, and the members' sessions in
/// rank order. Ranks follow slots, so that they change little from world to world.
pub(crate) fn draw_up(
    roster: &Roster,
    config: &RunConfig,
    generation: Generation,
    seed: &Secret,
    total_steps: u64,
) -> (World, Vec<SessionId>) {
    let waiting: Vec<_> =
        roster.by_slot().filter_map(|(id, s)| Some((id, s, s.enlisted()?))).collect();
    let size = u32::try_from(waiting.len()).expect("limited by `run.world`");
    let states: Vec<_> = waiting.iter().map(|(_, _, enlist)| enlist.state).collect();
    let (state_source, start) = newest_state(&states);
    let members = waiting
        .iter()
        .zip(deal_lanes(config.data.lanes, config.model.bn_group.max(1), size))
        .map(|((_, session, enlist), lanes)| Member {
            worker: session.worker.clone(),
            slot: session.slot,
            collective_address: enlist.collective_address,
            lanes,
        })
        .collect();
    let world = World {
        generation,
        rank: Rank(0),
        members,
        secret: secret_of(generation, seed),
        state_source,
        start,
        total_steps,
    };
    (world, waiting.iter().map(|(id, ..)| *id).collect())
}

/// The newest state and the lowest rank that holds it; rank 0 and the initial state if none does.
fn newest_state(states: &[Option<TrainingState>]) -> (Rank, TrainingState) {
    let mut newest = (Rank(0), None);
    for (rank, state) in (0..).map(Rank).zip(states) {
        let Some(state) = state else { continue };
        let better = |best: &TrainingState| (state.step, state.cursor) > (best.step, best.cursor);
        if newest.1.as_ref().is_none_or(better) {
            newest = (rank, Some(*state));
        }
    }
    (newest.0, newest.1.unwrap_or(TrainingState::INITIAL))
}

/// SHA-256 of the coordinator's random seed and the generation: fresh for every world, and
/// worthless for guessing that of another.
fn secret_of(generation: Generation, seed: &Secret) -> Secret {
    let hash = Sha256::new().chain_update(seed.0).chain_update(generation.0.to_le_bytes());
    Secret(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use lockstep_proto::ids::{Cursor, Digest};

    use super::*;

    #[test]
    fn the_newest_state_wins_and_ties_go_to_the_lowest_rank() {
        let state = |step| {
            Some(TrainingState { step: Step(step), cursor: Cursor(step), digest: Digest(step) })
        };
        let (source, start) = newest_state(&[None, state(4), state(9), state(9)]);
        assert_eq!((source, start.step), (Rank(2), Step(9)));
    }

    #[test]
    fn a_rank_that_resumes_at_step_zero_wins_over_ranks_without_a_state() {
        let held = TrainingState { step: Step(0), cursor: Cursor(0), digest: Digest(5) };
        assert_eq!(newest_state(&[None, Some(held)]), (Rank(1), held));
    }

    #[test]
    fn with_no_state_anywhere_everyone_starts_from_rank_zero_and_the_seed() {
        assert_eq!(newest_state(&[None, None]), (Rank(0), TrainingState::INITIAL));
    }

    #[test]
    fn every_generation_has_a_secret_of_its_own() {
        let seed = Secret([3; 32]);
        assert_ne!(secret_of(Generation(1), &seed), secret_of(Generation(2), &seed));
        assert_ne!(secret_of(Generation(1), &seed), secret_of(Generation(1), &Secret([4; 32])));
    }
}
