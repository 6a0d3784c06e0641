//! What the ranks of one world do together: take over the state, and apply batch after batch.
//!
//! A state is the chain of all batches that made it. Batches that are not finite are the same ones in every world, and so
//! all states behind the same batch are the same, whichever worlds they come from: [`Held::chain`] would show any batch
//! that was left out, applied twice or applied out of turn.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_proto::ids::{Cursor, Digest, Rank, Step};
use lockstep_proto::{StepPlan, TrainingState, World};

/// A training state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) step: u64,
    pub(crate) cursor: u64,
    pub(crate) chain: u64,
}

impl Held {
    pub(crate) const INITIAL: Self = Self { step: 0, cursor: 0, chain: 1 };

    pub(crate) fn state(self) -> TrainingState {
        let (step, cursor) = (Step(self.step), Cursor(self.cursor));
        TrainingState { step, cursor, digest: Digest(self.chain) }
    }

    /// Behind the next batch.
    pub(crate) fn next(self, plan: &StepPlan) -> Self {
        let applied = is_finite(self.cursor);
        let mut chain = self.chain;
        if applied {
            for part in [self.cursor, plan.decay.to_bits(), plan.learning_rate.to_bits()] {
                chain = (chain ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
            }
        }
        Self { step: self.step + u64::from(applied), cursor: self.cursor + 1, chain }
    }
}

/// Whether this batch moves the weights.
pub(crate) fn is_finite(cursor: u64) -> bool {
    cursor % 11 != 7
}

/// What all ranks brought to one batch.
#[derive(Debug, Clone, PartialEq)]
struct Brought {
    held: Held,
    plan: StepPlan,
    stop: bool,
}

/// One world's collectives.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) world: World,
    joined: BTreeSet<Rank>,
    /// The state that all start from, once its source has come.
    source: Option<Held>,
    batches: BTreeMap<u64, BTreeMap<Rank, Brought>>,
}

impl Meeting {
    pub(crate) fn new(world: World) -> Self {
        Self { world, joined: BTreeSet::new(), source: None, batches: BTreeMap::new() }
    }

    /// A rank comes, with what it holds; the state of the world once all have come.
    pub(crate) fn join(&mut self, rank: Rank, held: Option<Held>) -> Option<Held> {
        if self.joined.insert(rank) && rank == self.world.state_source {
            let held = held.unwrap_or(Held::INITIAL);
            let mut promised = self.world.start;
            if promised == TrainingState::INITIAL {
                promised.digest = Digest(Held::INITIAL.chain);
            }
            assert_eq!(held.state(), promised, "the source does not hold the announced state");
            self.source = Some(held);
        }
        self.source.filter(|_| self.joined.len() == self.world.members.len())
    }

    /// A rank brings its part of a batch.
    pub(crate) fn arrive(&mut self, rank: Rank, held: Held, plan: StepPlan, stop: bool) {
        let brought = Brought { held, plan, stop };
        let all = self.batches.entry(held.cursor).or_default();
        if let Some(other) = all.values().next() {
            assert_eq!((other.held, other.plan), (held, plan), "ranks are out of step");
        }
        all.entry(rank).or_insert(brought);
    }

    /// Whether all ranks agreed to stop behind this batch; `None` while one has not come.
    pub(crate) fn outcome(&self, cursor: u64) -> Option<bool> {
        let all = self.batches.get(&cursor)?;
        (all.len() == self.world.members.len()).then(|| all.values().any(|brought| brought.stop))
    }

    /// Batches that all ranks have brought.
    pub(crate) fn whole(&self) -> impl Iterator<Item = u64> {
        self.batches.keys().copied().filter(|cursor| self.outcome(*cursor).is_some())
    }
}
