//! The ranks that train together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Cursor, Digest, Generation, Rank, Step};
use lockstep_proto::{
    CommunicatorIds, Enlist, Heartbeat, Member, Secret, TrainingState, World, WorldEnd,
};
use sha2::{Digest as _, Sha256};

use crate::arrivals::Arrivals;
use crate::gather::Gather;
use crate::journal::{Place, Stopping, Then, WorldRecord};
use crate::lanes::deal_lanes;
use crate::plan::{Feed, RunPlan};
use crate::roster::Session;

/// A world from its announcement until all ranks have ended it.
#[derive(Debug)]
pub(crate) struct LiveWorld {
    pub(crate) record: WorldRecord,
    pub(crate) feed: Feed,
    pub(crate) digests: Gather<Digest>,
    pub(crate) arrivals: Arrivals,
    /// How the ranks ended that have ended.
    pub(crate) ends: BTreeMap<Rank, WorldEnd>,
    /// Whether it was asked to end at a step edge.
    pub(crate) stopping: Option<Stopping>,
    /// Whether rank 0 was asked for a checkpoint that is not on disk yet.
    pub(crate) saving: bool,
    /// Newest step in flight that a member named.
    pub(crate) newest: Step,
    /// By rank: the first batch that it has not reported.
    pub(crate) unreported: Vec<Cursor>,
    /// By rank: its newest heartbeat.
    pub(crate) pulses: Vec<Option<Heartbeat>>,
    /// Where its ranks meet, once rank 0 has said so. Never stored.
    pub(crate) communicators: Option<CommunicatorIds>,
    /// When a rank last showed progress, or did something that may take long.
    pub(crate) moved: Duration,
    /// Ranks that have not come back since the coordinator was started again.
    pub(crate) missing: BTreeSet<Rank>,
    /// How long they are waited for.
    pub(crate) missing_until: Duration,
}

impl LiveWorld {
    pub(crate) fn new(record: WorldRecord, window: u32, now: Duration) -> Self {
        let size = record.members.len();
        Self {
            feed: Feed::new(record.start.step, window),
            digests: Gather::new(size),
            arrivals: Arrivals::new(size),
            ends: BTreeMap::new(),
            stopping: None,
            saving: false,
            newest: record.start.step,
            unreported: vec![record.start.cursor; size],
            pulses: vec![None; size],
            communicators: None,
            moved: now,
            missing: BTreeSet::new(),
            missing_until: now,
            record,
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.record.generation
    }

    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.record.members.len()).expect("limited by `run.max_world`")
    }

    pub(crate) fn place(&self, rank: Rank) -> Option<&Place> {
        self.record.members.get(rank.0 as usize)
    }

    /// Whether more than half of its members are here, so that it goes on.
    pub(crate) fn is_carried(&self) -> bool {
        self.missing.len() * 2 < self.record.members.len()
    }

    /// Whether it has applied a step.
    pub(crate) fn progressed(&self) -> bool {
        self.newest > self.record.start.step
    }

    /// Whether there were steps left for it; without, it only saves the last state.
    pub(crate) fn has_steps(&self, plan: &RunPlan) -> bool {
        self.record.start.step.0 < plan.total_steps()
    }

    /// Steps whose plan was sent.
    pub(crate) fn planned(&self) -> Range<Step> {
        self.record.start.step..self.feed.next
    }

    /// Why the run ends with it, if it was asked to.
    pub(crate) fn ends_run(&self) -> Option<&str> {
        let stopping = self.stopping.as_ref().filter(|stopping| stopping.then == Then::End)?;
        Some(&stopping.why)
    }

    /// Whether every rank has left it.
    pub(crate) fn is_over(&self) -> bool {
        self.ends.len() == self.record.members.len()
    }
}

/// A worker that will be a member.
pub(crate) type Recruit<'a> = (&'a Session, &'a Enlist);

/// A world of these workers, as its first rank sees it, in the order of its ranks.
pub(crate) fn draw_up(
    recruits: &[Recruit<'_>],
    config: &RunConfig,
    generation: Generation,
    seed: &Secret,
    total_steps: u64,
) -> World {
    let size = u32::try_from(recruits.len()).expect("limited by `run.max_world`");
    let states: Vec<_> = recruits.iter().map(|(_, enlist)| enlist.state).collect();
    let (state_source, start) = newest_state(&states);
    let members = recruits
        .iter()
        .zip(deal_lanes(config.data.lanes, config.model.bn_group.max(1), size))
        .map(|((session, enlist), lanes)| Member {
            worker: session.worker.clone(),
            slot: session.slot,
            collective_address: enlist.collective_address,
            lanes,
        })
        .collect();
    World {
        generation,
        rank: Rank(0),
        members,
        secret: secret_of(generation, seed),
        state_source,
        start,
        total_steps,
    }
}

/// The newest state and the lowest rank that holds it; rank 0 and the initial state if none does. Where states of the same
/// step differ, that of most ranks counts.
fn newest_state(states: &[Option<TrainingState>]) -> (Rank, TrainingState) {
    let holders = |state: &TrainingState| states.iter().flatten().filter(|s| *s == state).count();
    let mut newest = (Rank(0), None);
    for (rank, state) in (0..).map(Rank).zip(states) {
        let Some(state) = state else { continue };
        let age = |state: &TrainingState| (state.step, state.cursor, holders(state));
        if newest.1.as_ref().is_none_or(|best| age(state) > age(best)) {
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
    use lockstep_proto::ids::Digest;

    use super::*;

    #[test]
    fn the_newest_state_wins_and_ties_go_to_the_lowest_rank() {
        let (source, start) = newest_state(&[None, state(4, 4), state(9, 9), state(9, 9)]);
        assert_eq!((source, start.step), (Rank(2), Step(9)));
    }

    #[test]
    fn of_different_states_of_one_step_that_of_most_ranks_wins() {
        let (source, start) = newest_state(&[state(9, 1), state(9, 2), state(9, 2), state(8, 3)]);
        assert_eq!((source, start.digest), (Rank(1), Digest(2)));
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

    #[expect(clippy::unnecessary_wraps, reason = "as an enlistment holds it")]
    fn state(step: u64, digest: u64) -> Option<TrainingState> {
        Some(TrainingState { step: Step(step), cursor: Cursor(step), digest: Digest(digest) })
    }
}
