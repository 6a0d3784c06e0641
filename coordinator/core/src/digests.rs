//! Whether all ranks still hold the same state.

use std::collections::BTreeMap;

use lockstep_proto::ids::{Cursor, Digest, Rank};

/// Batches whose digests are not all in; older ones are dropped, since a rank that is so far behind
/// is found by other means.
const MAX_OPEN: usize = 64;

/// Digests of one world, waiting for the other ranks'. By batch and not by step, since a step that
/// was skipped is tried again.
#[derive(Debug)]
pub(crate) struct Digests {
    world: usize,
    open: BTreeMap<Cursor, BTreeMap<Rank, Digest>>,
}

/// Ranks that do not hold the same state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    /// The minority; all ranks where there is no majority.
    pub(crate) odd: Vec<Rank>,
    /// Every different digest and how many ranks have it.
    pub(crate) found: BTreeMap<u64, usize>,
}

impl Digests {
    pub(crate) fn new(world: usize) -> Self {
        Self { world, open: BTreeMap::new() }
    }

    /// Notes a digest; compares once all ranks' are in.
    pub(crate) fn add(&mut self, cursor: Cursor, rank: Rank, digest: Digest) -> Option<Drift> {
        let digests = self.open.entry(cursor).or_default();
        digests.insert(rank, digest);
        if digests.len() < self.world {
            if self.open.len() > MAX_OPEN {
                self.open.pop_first();
            }
            return None;
        }
        compare(&self.open.remove(&cursor)?)
    }
}

fn compare(digests: &BTreeMap<Rank, Digest>) -> Option<Drift> {
    let mut found = BTreeMap::new();
    for digest in digests.values() {
        *found.entry(digest.0).or_insert(0) += 1;
    }
    if found.len() < 2 {
        return None;
    }
    let majority = found.iter().find(|(_, count)| **count * 2 > digests.len());
    let odd = digests
        .iter()
        .filter(|(_, digest)| majority.is_none_or(|(majority, _)| digest.0 != *majority))
        .map(|(rank, _)| *rank)
        .collect();
    Some(Drift { odd, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_digests_are_no_drift() {
        let mut digests = Digests::new(2);
        assert_eq!(digests.add(Cursor(1), Rank(0), Digest(7)), None);
        assert_eq!(digests.add(Cursor(1), Rank(1), Digest(7)), None);
        assert!(digests.open.is_empty());
    }

    #[test]
    fn the_minority_is_named() {
        let mut digests = Digests::new(3);
        digests.add(Cursor(1), Rank(2), Digest(7));
        digests.add(Cursor(1), Rank(1), Digest(8));
        let drift = digests.add(Cursor(1), Rank(0), Digest(7)).unwrap();
        assert_eq!(drift.odd, [Rank(1)]);
        assert_eq!(drift.found, BTreeMap::from([(7, 2), (8, 1)]));
    }

    #[test]
    fn without_a_majority_all_are_named() {
        let mut digests = Digests::new(2);
        digests.add(Cursor(1), Rank(0), Digest(7));
        assert_eq!(digests.add(Cursor(1), Rank(1), Digest(8)).unwrap().odd, [Rank(0), Rank(1)]);
    }

    #[test]
    fn a_rank_that_never_reports_does_not_fill_the_memory() {
        let mut digests = Digests::new(2);
        for step in 0..1000 {
            digests.add(Cursor(step), Rank(0), Digest(7));
        }
        assert_eq!(digests.open.len(), MAX_OPEN);
        assert_eq!(digests.add(Cursor(999), Rank(1), Digest(8)).unwrap().odd.len(), 2);
    }
}
