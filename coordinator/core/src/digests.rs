//! Whether all ranks still hold the same state.

use std::collections::BTreeMap;

use lockstep_proto::ids::{Digest, Rank};

/// Ranks that do not hold the same state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    /// The minority; all ranks where there is no majority.
    pub(crate) odd: Vec<Rank>,
    /// Whether more than half of the ranks hold one state.
    pub(crate) majority: bool,
    /// Every different digest and how many ranks have it.
    pub(crate) found: BTreeMap<u64, usize>,
}

/// Compares the digests of all ranks after one batch.
pub(crate) fn compare(digests: &BTreeMap<Rank, Digest>) -> Option<Drift> {
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
    Some(Drift { odd, majority: majority.is_some(), found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_digests_are_no_drift() {
        assert_eq!(compare(&digests(&[7, 7])), None);
    }

    #[test]
    fn the_minority_is_named() {
        let drift = compare(&digests(&[7, 8, 7])).unwrap();
        assert_eq!((drift.odd, drift.majority), (vec![Rank(1)], true));
        assert_eq!(drift.found, BTreeMap::from([(7, 2), (8, 1)]));
    }

    #[test]
    fn without_a_majority_all_are_named() {
        for without in [&[7, 8][..], &[7, 7, 8, 8], &[7, 7, 8, 9]] {
            let drift = compare(&digests(without)).unwrap();
            assert_eq!((drift.odd.len(), drift.majority), (without.len(), false));
        }
    }

    fn digests(digests: &[u64]) -> BTreeMap<Rank, Digest> {
        (0..).map(Rank).zip(digests.iter().map(|digest| Digest(*digest))).collect()
    }
}
