//! Who is late: the rank that waits least for its peers in the first collective of a step is the last to arrive.

use std::time::Duration;

use lockstep_proto::ids::{Cursor, Rank};

use crate::gather::Gather;

/// Share of a new step in the moving averages: they look back about 16 steps.
const NEW_SHARE: f64 = 1.0 / 16.0;

/// Moving averages of how much later than the first each rank of one world arrives.
#[derive(Debug)]
pub(crate) struct Arrivals {
    waits: Gather<Duration>,
    /// In seconds, by rank; empty before the first step of which all ranks have told.
    late: Vec<f64>,
}

impl Arrivals {
    pub(crate) fn new(world: usize) -> Self {
        Self { waits: Gather::new(world), late: Vec::new() }
    }

    /// Notes how long a rank waited.
    pub(crate) fn add(&mut self, cursor: Cursor, rank: Rank, wait: Duration) {
        let Some(waits) = self.waits.add(cursor, rank, wait) else { return };
        let longest = waits.values().max().copied().unwrap_or_default();
        let late = waits.values().map(|wait| longest.saturating_sub(*wait).as_secs_f64());
        if self.late.is_empty() {
            self.late = late.collect();
            return;
        }
        for (mean, late) in self.late.iter_mut().zip(late) {
            *mean += NEW_SHARE * (late - *mean);
        }
    }

    /// How much later than the first this rank arrives.
    pub(crate) fn late(&self, rank: Rank) -> Option<Duration> {
        self.late.get(rank.0 as usize).copied().map(Duration::from_secs_f64)
    }

    /// The rank that arrives last.
    pub(crate) fn last(&self) -> Option<Rank> {
        let ranks = (0..).map(Rank).zip(&self.late);
        ranks.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(rank, _)| rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_that_waits_least_is_the_last_to_arrive() {
        let mut arrivals = Arrivals::new(3);
        assert_eq!((arrivals.last(), arrivals.late(Rank(0))), (None, None));
        step(&mut arrivals, 0, [30, 5, 35]);
        assert_eq!(arrivals.last(), Some(Rank(1)));
        let late = [0, 1, 2].map(|rank| arrivals.late(Rank(rank)).unwrap().as_millis());
        assert_eq!(late, [5, 30, 0]);
    }

    #[test]
    fn one_slow_step_is_forgotten_and_a_slow_rank_is_not() {
        let mut arrivals = Arrivals::new(2);
        step(&mut arrivals, 0, [0, 1000]);
        for cursor in 1..100 {
            step(&mut arrivals, cursor, [20, 0]);
        }
        assert_eq!(arrivals.last(), Some(Rank(1)));
        let late = [0, 1].map(|rank| arrivals.late(Rank(rank)).unwrap().as_millis());
        assert!(late[0] < 3 && late[1] > 18, "{late:?}");
    }

    fn step<const N: usize>(arrivals: &mut Arrivals, cursor: u64, waits: [u64; N]) {
        for (rank, wait) in (0..).map(Rank).zip(waits) {
            arrivals.add(Cursor(cursor), rank, Duration::from_millis(wait));
        }
    }
}
