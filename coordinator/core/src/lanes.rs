//! Dealing lanes to ranks.

use lockstep_proto::LaneRange;

/// Cuts `0..lanes` into `world` contiguous ranges in rank order, of whole groups of `group` lanes; sizes
/// differ by at most one group, the larger ones first.
///
/// # Panics
///
/// If there are no ranks, fewer groups than ranks or lanes left over: the configuration's checks forbid all.
pub fn deal_lanes(lanes: u32, group: u32, world: u32) -> Vec<LaneRange> {
    let groups = lanes / group;
    assert!(
        world > 0 && groups >= world && lanes.is_multiple_of(group),
        "cannot deal {lanes} lanes in groups of {group} to {world} ranks"
    );
    let (each, extra) = (groups / world, groups % world);
    let mut first = 0;
    (0..world)
        .map(|rank| {
            let range = LaneRange { first, count: group * (each + u32::from(rank < extra)) };
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
        fn every_lane_is_dealt_once_and_hands_differ_by_at_most_one_group(
            world in 1u32..200, more in 0u32..1000, group in 1u32..5
        ) {
            let lanes = group * (world + more);
            let deal = deal_lanes(lanes, group, world);
            prop_assert_eq!(deal.len(), world as usize);
            let dealt: Vec<_> =
                deal.iter().flat_map(|range| range.first..range.first + range.count).collect();
            prop_assert_eq!(dealt, (0..lanes).collect::<Vec<_>>());
            let most = deal.iter().map(|range| range.count).max().unwrap();
            let least = deal.iter().map(|range| range.count).min().unwrap();
            prop_assert!(most - least <= group && least >= group);
            prop_assert!(deal.iter().all(|range| range.count.is_multiple_of(group)));
        }
    }

    #[test]
    fn eight_lanes_on_three_ranks_are_three_three_and_two() {
        let counts: Vec<_> = deal_lanes(8, 1, 3).iter().map(|range| range.count).collect();
        assert_eq!(counts, [3, 3, 2]);
    }

    #[test]
    fn ten_lanes_in_groups_of_two_on_three_ranks_are_four_four_and_two() {
        let counts: Vec<_> = deal_lanes(10, 2, 3).iter().map(|range| range.count).collect();
        assert_eq!(counts, [4, 4, 2]);
    }
}
