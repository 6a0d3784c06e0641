//! Weighted nearest neighbours: how often samples of one class lie together.
//!
//! ```text
//! cos(q, b)     of L2-normalized features
//! score(c)    = Σ exp(cos(q, b)/T)    over the k nearest b of class c
//! prediction  = the class of the highest score; of equal ones the lowest
//! ```
//!
//! The bank's similarities to a block of queries are one matrix product; blocks bound the memory.
//!
//! Source: Wu et al. 2018, arXiv:1805.01978, section 3.4.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::eval::Features;

/// Similarities held at once: 64 MiB of them.
const BLOCK_ELEMENTS: usize = 1 << 24;

/// A sample of the bank near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its row in the bank.
    pub index: usize,
    /// Cosine between it and the query.
    pub cosine: f32,
}

/// Whether the queries are samples of the bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queries {
    Apart,
    /// Query i is row i of the bank, and no neighbour of itself.
    OfTheBank,
}

/// Share of `queries` whose class their neighbours in `bank` vote for, 0 to 1.
///
/// `k` neighbours vote, or all in a smaller bank; `temperature` is T.
///
/// # Panics
///
/// If the features are of different dimensions.
pub fn accuracy(bank: &Features, queries: &Features, k: u32, temperature: f64) -> f64 {
    share_right([bank, queries], Queries::Apart, k, temperature)
}

/// As [`accuracy`] with the bank's own samples as queries, none of which votes for itself.
pub fn leave_one_out(bank: &Features, k: u32, temperature: f64) -> f64 {
    share_right([bank, bank], Queries::OfTheBank, k, temperature)
}

/// The `k` nearest samples of `bank` for each of `queries`, nearest first.
///
/// # Panics
///
/// If the features are of different dimensions.
pub fn neighbours(bank: &Features, queries: &Features, k: usize) -> Vec<Vec<Neighbour>> {
    let mut found = Vec::with_capacity(queries.len());
    search(bank, queries, (k, Queries::Apart), |_, neighbours| found.push(neighbours));
    found
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples")]
fn share_right(sets: [&Features; 2], kind: Queries, k: u32, temperature: f64) -> f64 {
    let [bank, queries] = sets;
    let mut right = 0_usize;
    search(bank, queries, (k as usize, kind), |query, neighbours| {
        let predicted = prediction(&neighbours, &bank.labels, temperature);
        right += usize::from(predicted == Some(queries.labels[query]));
    });
    right as f64 / queries.len().max(1) as f64
}

/// The class that the neighbours vote for; `None` without neighbours.
fn prediction(neighbours: &[Neighbour], labels: &[u32], temperature: f64) -> Option<u32> {
    let mut scores = BTreeMap::<u32, f64>::new();
    for Neighbour { index, cosine } in neighbours {
        // exp((cos − 1)/T): the common factor changes no order and keeps small T from overflowing.
        let weight = ((f64::from(*cosine) - 1.0) / temperature).exp();
        *scores.entry(labels[*index]).or_default() += weight;
    }
    let mut best = None;
    for (class, score) in scores {
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((class, score));
        }
    }
    best.map(|(class, _)| class)
}

/// Calls `found` with each query and its `k` neighbours, in the order of the queries.
fn search(
    bank: &Features,
    queries: &Features,
    (k, kind): (usize, Queries),
    mut found: impl FnMut(usize, Vec<Neighbour>),
) {
    assert_eq!(bank.dims, queries.dims, "dimensions of bank and queries");
    if bank.is_empty() {
        return;
    }
    let own = usize::from(kind == Queries::OfTheBank);
    let wanted = (k + own).min(bank.len());
    let bank_db = normalized(bank, 0, bank.len()).transpose(0, 1);
    let rows = (BLOCK_ELEMENTS / bank.len()).max(1);
    for first in (0..queries.len()).step_by(rows) {
        let count = rows.min(queries.len() - first);
        let similarities_qb = normalized(queries, first, count).matmul(&bank_db);
        let (cosines, indices) = similarities_qb.topk(signed(wanted), 1, true, true);
        let cosines = Vec::<f32>::try_from(cosines.view([-1])).expect("a dense vector");
        let indices = Vec::<i64>::try_from(indices.view([-1])).expect("a dense vector");
        let rows = cosines.chunks_exact(wanted).zip(indices.chunks_exact(wanted));
        for (query, (cosines, indices)) in (first..).zip(rows) {
            let neighbours = indices.iter().zip(cosines).map(|(&index, &cosine)| Neighbour {
                index: usize::try_from(index).expect("an index"),
                cosine,
            });
            let apart = neighbours.filter(|found| own == 0 || found.index != query);
            found(query, apart.take(k).collect());
        }
    }
}

/// Rows from `first`, each divided by its L2 norm.
fn normalized(features: &Features, first: usize, count: usize) -> Tensor {
    let values = &features.values[first * features.dims..][..count * features.dims];
    let mut rows = Tensor::from_slice(values).view([signed(count), signed(features.dims)]);
    let norms = (&rows * &rows).sum_dim_intlist(1_i64, true, Kind::Float).sqrt();
    rows /= norms.clamp_min(1e-12);
    debug_assert_eq!(rows.device(), Device::Cpu);
    rows
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).expect("sizes of tensors")
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "shares of a few samples are exact")]
mod tests {
    use super::*;

    fn features(rows: &[[f32; 2]], labels: &[u32]) -> Features {
        Features { values: rows.concat(), dims: 2, labels: labels.to_vec() }
    }

    const T: f64 = 0.07;

    /// A unit vector at this angle in degrees.
    fn at(degrees: f32) -> [f32; 2] {
        [degrees.to_radians().cos(), degrees.to_radians().sin()]
    }

    #[test]
    fn neighbours_come_nearest_first_whatever_their_length() {
        let bank = features(&[at(90.0), [10.0, 1.0], at(30.0), [-1.0, 0.0]], &[0; 4]);
        let found = neighbours(&bank, &features(&[[0.1, 0.0]], &[0]), 3);
        let indices: Vec<_> = found[0].iter().map(|neighbour| neighbour.index).collect();
        assert_eq!(indices, [1, 2, 0]);
        assert!((found[0][1].cosine - 30.0_f32.to_radians().cos()).abs() < 1e-6);
    }

    #[test]
    fn a_near_neighbour_outweighs_two_far_ones_only_at_a_low_temperature() {
        // Weights at T = 0.07: exp(1/T) against 2·exp(0.5/T). At T = 10: 1.105 against 2·1.051.
        let bank = features(&[at(0.0), at(60.0), at(-60.0)], &[1, 2, 2]);
        let query = features(&[at(0.0)], &[1]);
        assert_eq!(accuracy(&bank, &query, 3, T), 1.0);
        assert_eq!(accuracy(&bank, &query, 3, 10.0), 0.0);
    }

    #[test]
    fn with_one_neighbour_the_nearest_decides() {
        let bank = features(&[at(0.0), at(10.0), at(12.0)], &[1, 2, 2]);
        let queries = features(&[at(4.0), at(9.0)], &[1, 2]);
        assert_eq!(accuracy(&bank, &queries, 1, T), 1.0);
        let queries = features(&[at(4.0), at(9.0)], &[2, 1]);
        assert_eq!(accuracy(&bank, &queries, 1, T), 0.0);
    }

    #[test]
    fn of_equal_scores_the_lowest_class_wins() {
        let bank = features(&[[1.0, 0.0], [1.0, 0.0]], &[5, 3]);
        assert_eq!(accuracy(&bank, &features(&[at(0.0)], &[3]), 2, T), 1.0);
    }

    #[test]
    fn a_sample_of_the_bank_does_not_vote_for_itself() {
        let bank = features(&[at(0.0), at(1.0), at(2.0)], &[0, 1, 1]);
        assert_eq!(accuracy(&bank, &bank, 1, T), 1.0);
        // 0 takes 1's class (wrong), 1 is as near to 0 as to 2, 2 takes 1's (right).
        assert_eq!(
            leave_one_out(&features(&[at(0.0), at(1.0), at(1.5)], &[0, 1, 1]), 1, T),
            2.0 / 3.0
        );
    }

    #[test]
    fn a_sample_of_the_bank_may_have_its_duplicate_as_neighbour() {
        let bank = features(&[at(0.0), at(0.0), at(90.0)], &[4, 4, 9]);
        assert_eq!(leave_one_out(&bank, 1, T), 2.0 / 3.0);
    }

    #[test]
    fn a_small_bank_an_empty_one_and_features_of_zero_or_not_a_number_are_no_reason_to_fail() {
        let query = features(&[at(0.0)], &[1]);
        assert_eq!(accuracy(&features(&[at(5.0)], &[1]), &query, 20, T), 1.0);
        assert_eq!(accuracy(&features(&[], &[]), &query, 20, T), 0.0);
        assert_eq!(accuracy(&query, &features(&[], &[]), 20, T), 0.0);
        assert_eq!(leave_one_out(&query, 20, T), 0.0);
        let zero = features(&[[0.0, 0.0]], &[1]);
        assert_eq!(accuracy(&query, &zero, 1, T), 1.0);
        let collapsed = features(&[[f32::NAN, 0.0]], &[1]);
        let share = accuracy(&collapsed, &query, 1, T);
        assert!((0.0..=1.0).contains(&share));
    }

    #[test]
    fn blocks_of_queries_change_nothing() {
        let count = 5_000;
        let rows: Vec<[f32; 2]> = (0_u16..count).map(|index| at(f32::from(index) * 0.07)).collect();
        let labels: Vec<u32> = (0..u32::from(count)).map(|index| index / 50).collect();
        let bank = features(&rows, &labels);
        assert!(bank.len() * bank.len() > BLOCK_ELEMENTS, "more than one block");
        let all = neighbours(&bank, &bank, 3);
        for index in [0, 3_400, 4_999] {
            assert_eq!(
                neighbours(&bank, &bank.select(&[index]), 3)[0][0].index,
                all[index][0].index
            );
        }
    }
}
