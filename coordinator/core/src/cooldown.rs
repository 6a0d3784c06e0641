//! Places that fail again and again are kept out of worlds for a while, longer each time.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_proto::ids::Slot;

/// Longest time for which a place is kept out.
const LONGEST: Duration = Duration::from_mins(5);
/// A place that was well for so long starts anew.
const FORGIVEN: Duration = Duration::from_mins(1);

/// A slot on a host: what stays the same when a process is started anew.
pub(crate) type PlaceName = (String, Slot);

/// Who failed lately, and how often.
#[derive(Debug)]
pub(crate) struct Cooldowns {
    /// For a second failure in a row; doubles with each further one.
    first: Duration,
    failed: BTreeMap<PlaceName, Failed>,
}

#[derive(Debug)]
struct Failed {
    times: u32,
    until: Duration,
}

impl Cooldowns {
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, failed: BTreeMap::new() }
    }

    /// Notes that a member of a world broke it. The first time costs nothing: anyone may fail once.
    pub(crate) fn note(&mut self, place: PlaceName, now: Duration) {
        self.failed.retain(|_, failed| now < failed.until + FORGIVEN);
        let failed = self.failed.entry(place).or_insert(Failed { times: 0, until: now });
        failed.times += 1;
        let doublings = failed.times.saturating_sub(2).min(31);
        let delay = self.first.saturating_mul(1 << doublings).min(LONGEST);
        failed.until = if failed.times < 2 { now } else { now + delay };
    }

    /// How long a place is kept out still; zero: it is not.
    pub(crate) fn left(&self, place: &PlaceName, now: Duration) -> Duration {
        self.failed.get(place).map_or(Duration::ZERO, |failed| failed.until.saturating_sub(now))
    }

    /// How often it failed in a row.
    pub(crate) fn times(&self, place: &PlaceName) -> u32 {
        self.failed.get(place).map_or(0, |failed| failed.times)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_failure_is_free_and_the_delay_doubles_then() {
        let mut cooldowns = Cooldowns::new(Duration::from_secs(5));
        let mut now = Duration::ZERO;
        for seconds in [0, 5, 10, 20, 40, 80, 160, 300, 300] {
            cooldowns.note(place(0), now);
            assert_eq!(cooldowns.left(&place(0), now), Duration::from_secs(seconds));
            assert_eq!(cooldowns.left(&place(1), now), Duration::ZERO, "it did nothing");
            now += cooldowns.left(&place(0), now);
        }
        assert_eq!(cooldowns.times(&place(0)), 9);
    }

    #[test]
    fn a_place_that_was_well_for_a_minute_starts_anew() {
        let mut cooldowns = Cooldowns::new(Duration::from_secs(5));
        (0..4).for_each(|_| cooldowns.note(place(0), Duration::ZERO));
        let well = Duration::from_secs(20) + FORGIVEN;
        cooldowns.note(place(0), well);
        assert_eq!(cooldowns.left(&place(0), well), Duration::ZERO);
        assert_eq!(cooldowns.failed.len(), 1);
    }

    proptest! {
        #[test]
        fn nobody_is_kept_out_longer_than_the_longest_delay(
            first in 0u64..600_000, gaps in prop::collection::vec(0u64..400_000, 1..60)
        ) {
            let mut cooldowns = Cooldowns::new(Duration::from_millis(first));
            let mut now = Duration::ZERO;
            for gap in gaps {
                now += Duration::from_millis(gap);
                cooldowns.note(place(0), now);
                prop_assert!(cooldowns.left(&place(0), now) <= LONGEST);
            }
        }
    }

    fn place(slot: u32) -> PlaceName {
        ("node".into(), Slot(slot))
    }
}
