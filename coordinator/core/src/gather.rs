//! Figures that only say something once all ranks have told theirs.

use std::collections::BTreeMap;

use lockstep_proto::ids::{Cursor, Rank};

/// Batches of which not all ranks have told; older ones are dropped, since a rank that is so far behind is found by
/// other means.
const MAX_OPEN: usize = 64;

/// One figure per rank and batch. By batch and not by step, since a step that was skipped is tried again.
#[derive(Debug)]
pub(crate) struct Gather<T> {
    world: usize,
    open: BTreeMap<Cursor, BTreeMap<Rank, T>>,
}

impl<T> Gather<T> {
    pub(crate) fn new(world: usize) -> Self {
        Self { world, open: BTreeMap::new() }
    }

    /// Notes a figure; all of that batch once they are in.
    pub(crate) fn add(
        &mut self,
        cursor: Cursor,
        rank: Rank,
        value: T,
    ) -> Option<BTreeMap<Rank, T>> {
        let told = self.open.entry(cursor).or_default();
        told.insert(rank, value);
        if told.len() == self.world {
            return self.open.remove(&cursor);
        }
        if self.open.len() > MAX_OPEN {
            self.open.pop_first();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_complete_once_every_rank_has_told() {
        let mut gather = Gather::new(2);
        assert_eq!(gather.add(Cursor(1), Rank(1), 'b'), None);
        assert_eq!(gather.add(Cursor(2), Rank(1), 'c'), None);
        let all = BTreeMap::from([(Rank(0), 'a'), (Rank(1), 'b')]);
        assert_eq!(gather.add(Cursor(1), Rank(0), 'a'), Some(all));
        assert_eq!(gather.open.len(), 1);
    }

    #[test]
    fn a_rank_that_never_tells_does_not_fill_the_memory() {
        let mut gather = Gather::new(2);
        for batch in 0..1000 {
            gather.add(Cursor(batch), Rank(0), ());
        }
        assert_eq!(gather.open.len(), MAX_OPEN);
        assert!(gather.add(Cursor(999), Rank(1), ()).is_some());
    }
}
