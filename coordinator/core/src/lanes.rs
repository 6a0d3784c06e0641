//! Dealing lanes to ranks.

use lockstep_proto::LaneRange;

/// Cuts `0..lanes` into `world` contiguous ranges in rank order; sizes differ by at most one, the
/// larger ones first.
///
/// # Panics
///
/// If there are no ranks, or fewer lanes than ranks: the configuration's checks forbid both.
pub fn deal_lanes(lanes: u32, world: u32) -> Vec<LaneRange> {
    assert!(world > 0 && lanes >= world, "cannot deal {lanes} lanes to {world} ranks");
    let (each, extra) = (lanes / world, lanes % world);
    let mut first = 0;
    (0..world)
        .map(|rank| {
            let range = LaneRange { first, count: each + u32::from(rank < extra) };
            first += range.count;
            range
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_lane_is_dealt_once_and_hands_differ_by_at_most_one(
            world in 1u32..200, more in 0u32..1000
        ) {
            let lanes = world + more;
            let deal = deal_lanes(lanes, world);
            prop_assert_eq!(deal.len(), world as usize);
            let dealt: Vec<_> =
                deal.iter().flat_map(|range| range.first..range.first + range.count).collect();
            prop_assert_eq!(dealt, (0..lanes).collect::<Vec<_>>());
            let most = deal.iter().map(|range| range.count).max().unwrap();
            let least = deal.iter().map(|range| range.count).min().unwrap();
            prop_assert!(most - least <= 1 && least >= 1);
        }
    }

    #[test]
    fn eight_lanes_on_three_ranks_are_three_three_and_two() {
        let counts: Vec<_> = deal_lanes(8, 3).iter().map(|range| range.count).collect();
        assert_eq!(counts, [3, 3, 2]);
    }
}
