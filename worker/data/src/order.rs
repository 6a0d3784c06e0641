//! The order of samples, as a formula of (cursor, lane, slot).
//!
//! ```text
//!  shards, shuffled   │ 3 │ 0 │ 4 │ 1 │ 2 │      per data epoch
//!  one line           ├───────────────────┤      S samples, begun at a drawn place
//!  V equal lanes      ├────┼────┼────┼────┤┄     the tail S mod N is dropped
//!  blocks in a lane   ├─┼─┼─┼┄                   shuffled inside
//!  a step             n samples of every lane
//! ```
//!
//! Lanes are virtual workers: they are dealt to ranks, so the batch of a step
//! does not depend on how many ranks there are. A rank with a few lanes reads a
//! few shards, front to back. Nothing is stored between calls: resuming and
//! dealing anew are arithmetic.
//!
//! The line begins at a drawn place and wraps around, so that the dropped tail
//! moves even when the data set is a single shard.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::DataError;
use crate::keyed::{self, Key, Permutation, Purpose};
use crate::sample::SampleId;

/// What fixes the order, beside the sizes of the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderConfig {
    /// Seed of the run.
    pub seed: u64,
    /// Samples per step over all ranks: N.
    pub global_batch: u32,
    /// Virtual workers: V, a divisor of N.
    pub lanes: u32,
    /// Samples that are shuffled among each other inside a lane.
    pub shuffle_block: u64,
}

/// The order of all samples in all data epochs of a run.
#[derive(Debug, Clone)]
pub struct Order {
    config: OrderConfig,
    /// First sample of each shard in manifest order, and the total at the end.
    starts: Vec<u64>,
    steps_per_epoch: u64,
}

impl Order {
    /// Fixes the order over shards of these sizes.
    ///
    /// # Errors
    ///
    /// If the lanes do not divide the batch, or the data set is smaller than one.
    pub fn new(shard_sizes: &[u64], config: OrderConfig) -> Result<Self, DataError> {
        let OrderConfig { global_batch, lanes, shuffle_block, .. } = config;
        let mut starts = vec![0];
        starts.extend(shard_sizes.iter().scan(0_u64, |end, size| {
            *end += size;
            Some(*end)
        }));
        let samples = starts[shard_sizes.len()];
        if global_batch == 0 || u64::from(global_batch) > samples {
            return Err(DataError::setting(
                "global_batch",
                format!(
                    "is {global_batch}, but the data set has {samples} samples; \
                     choose from 1 to {samples}"
                ),
            ));
        }
        if lanes == 0 || !global_batch.is_multiple_of(lanes) {
            return Err(DataError::setting(
                "lanes",
                format!(
                    "is {lanes}, which does not divide the global batch {global_batch}; \
                     choose a divisor, for example {global_batch}"
                ),
            ));
        }
        if shuffle_block == 0 {
            return Err(DataError::setting("shuffle_block", "is 0; choose 1 or more"));
        }
        Ok(Self { config, starts, steps_per_epoch: samples / u64::from(global_batch) })
    }

    /// ⌊S/N⌋: whole global batches in one pass over the data.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Samples that one lane gives to one step: n = N/V.
    pub fn slots(&self) -> u32 {
        self.config.global_batch / self.config.lanes
    }

    /// Lanes: V.
    pub fn lanes(&self) -> u32 {
        self.config.lanes
    }

    /// The data epoch that the global batch `cursor` belongs to.
    pub fn data_epoch(&self, cursor: u64) -> u64 {
        cursor / self.steps_per_epoch
    }

    /// The order within one data epoch.
    pub fn epoch(&self, data_epoch: u64) -> EpochOrder<'_> {
        EpochOrder::new(self, data_epoch)
    }

    /// The sample at one place of the run; `cursor` counts global batches from 0.
    ///
    /// # Panics
    ///
    /// If `lane` or `slot` is out of range.
    pub fn sample(&self, cursor: u64, lane: u32, slot: u32) -> SampleId {
        self.epoch(self.data_epoch(cursor)).sample(cursor % self.steps_per_epoch, lane, slot)
    }

    /// The samples that `lanes` give to the global batch `cursor`, by lane, then slot.
    ///
    /// # Panics
    ///
    /// If a lane is out of range.
    pub fn batch(&self, cursor: u64, lanes: Range<u32>) -> Vec<SampleId> {
        let epoch = self.epoch(self.data_epoch(cursor));
        let step = cursor % self.steps_per_epoch;
        let slots = self.slots();
        lanes
            .flat_map(|lane| (0..slots).map(move |slot| (lane, slot)))
            .map(|(lane, slot)| epoch.sample(step, lane, slot))
            .collect()
    }

    /// The shards that `lanes` read from the global batch `cursor` on, the most urgent first: those of its
    /// blocks, and `ahead` more of every lane, in the next data epoch where this one ends.
    ///
    /// # Panics
    ///
    /// If a lane is out of range.
    pub fn shards_ahead(&self, cursor: u64, lanes: Range<u32>, ahead: usize) -> Vec<usize> {
        let data_epoch = self.data_epoch(cursor);
        let (now, next) = (self.epoch(data_epoch), self.epoch(data_epoch + 1));
        let step = cursor % self.steps_per_epoch;
        let mut ranked: Vec<(usize, usize)> = lanes
            .flat_map(|lane| {
                let of_batch = now.shards_of_step(step, lane);
                let shards = now.shards_from(step, lane).map(|(_, shard)| shard);
                let later = next.shards_from(0, lane).map(|(_, shard)| shard);
                shards.chain(later).take(of_batch + ahead).enumerate()
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let mut seen = BTreeSet::new();
        ranked.into_iter().map(|(_, shard)| shard).filter(|shard| seen.insert(*shard)).collect()
    }

    fn samples(&self) -> u64 {
        self.starts.last().copied().unwrap_or_default()
    }
}

/// The order within one data epoch: [`Order`] with the shards laid out.
#[derive(Debug)]
pub struct EpochOrder<'a> {
    order: &'a Order,
    key: Key,
    /// Shards in the order of this data epoch, with their first place on the line.
    line: Vec<(u64, usize)>,
    rotation: u64,
}

impl<'a> EpochOrder<'a> {
    fn new(order: &'a Order, data_epoch: u64) -> Self {
        let key = Key::new(order.config.seed).derive(Purpose::Order, data_epoch);
        let mut shards: Vec<usize> = (0..order.starts.len() - 1).collect();
        keyed::shuffle(&mut shards, key.derive(Purpose::Shards, 0));
        let line = shards
            .into_iter()
            .scan(0, |next, shard| {
                let start = *next;
                *next += order.starts[shard + 1] - order.starts[shard];
                Some((start, shard))
            })
            .collect();
        Self { order, key, line, rotation: key.below(0, order.samples()) }
    }

    /// The sample at one place; `step` counts global batches in this data epoch.
    ///
    /// # Panics
    ///
    /// If `step`, `lane` or `slot` is out of range.
    pub fn sample(&self, step: u64, lane: u32, slot: u32) -> SampleId {
        let slots = self.order.slots();
        assert!(step < self.order.steps_per_epoch, "step {step} is past the data epoch");
        assert!(lane < self.order.lanes(), "lane {lane} of {}", self.order.lanes());
        assert!(slot < slots, "slot {slot} of {slots}");
        let place = step * u64::from(slots) + u64::from(slot);
        let place = self.shuffled(place, lane);
        self.at(u64::from(lane) * self.lane_len() + place)
    }

    /// Places of a lane.
    fn lane_len(&self) -> u64 {
        self.order.steps_per_epoch * u64::from(self.order.slots())
    }

    /// The shards that a lane reads from the first block of `step` on, each with the place where it begins to.
    fn shards_from(&self, step: u64, lane: u32) -> impl Iterator<Item = (u64, usize)> {
        let first = step * u64::from(self.order.slots());
        let mut next = first - first % self.order.config.shuffle_block;
        std::iter::from_fn(move || {
            let place = next;
            if place >= self.lane_len() {
                return None;
            }
            let on_line = u64::from(lane) * self.lane_len() + place + self.rotation;
            let on_line = on_line % self.order.samples();
            let after = self.line.partition_point(|(start, _)| *start <= on_line);
            let end = self.line.get(after).map_or(self.order.samples(), |(start, _)| *start);
            next += end - on_line;
            Some((place, self.line[after - 1].1))
        })
    }

    /// How many of them hold the blocks of this step.
    fn shards_of_step(&self, step: u64, lane: u32) -> usize {
        let last = (step + 1) * u64::from(self.order.slots()) - 1;
        let block = self.order.config.shuffle_block;
        let end = (last - last % block).saturating_add(block);
        self.shards_from(step, lane).take_while(|(place, _)| *place < end).count()
    }

    /// Shuffles a place of a lane within its block.
    fn shuffled(&self, place: u64, lane: u32) -> u64 {
        let block = place / self.order.config.shuffle_block;
        let start = block * self.order.config.shuffle_block;
        let len = self.order.config.shuffle_block.min(self.lane_len() - start);
        let key = self.key.derive(Purpose::Lane, lane.into()).derive(Purpose::Block, block);
        start + Permutation::new(key, len).at(place - start)
    }

    /// The sample at a place of the line.
    fn at(&self, place: u64) -> SampleId {
        let place = (place + self.rotation) % self.order.samples();
        let after = self.line.partition_point(|(start, _)| *start <= place);
        let (start, shard) = self.line[after - 1];
        SampleId(self.order.starts[shard] + place - start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: OrderConfig =
        OrderConfig { seed: 42, global_batch: 12, lanes: 4, shuffle_block: 8 };

    #[test]
    fn the_order_is_pinned() {
        // A change of these numbers changes every run: raise the format version with it.
        let order = Order::new(&[20, 15, 30], CONFIG).unwrap();
        let ids = |cursor| order.batch(cursor, 0..4).iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(order.steps_per_epoch(), 5);
        assert_eq!(ids(0), [13, 10, 9, 24, 25, 22, 37, 36, 43, 53, 55, 54]);
        assert_eq!(ids(7), [30, 31, 4, 14, 11, 36, 40, 42, 54, 60, 56, 23]);
    }

    #[test]
    fn the_dropped_tail_moves_even_with_a_single_shard() {
        let order = Order::new(&[14], CONFIG).unwrap();
        let seen: BTreeSet<_> = (0..50).flat_map(|cursor| order.batch(cursor, 0..4)).collect();
        assert_eq!(seen.len(), 14);
    }

    #[test]
    fn a_lane_reads_front_to_back_but_for_its_blocks() {
        let config = OrderConfig { seed: 1, global_batch: 8, lanes: 2, shuffle_block: 16 };
        let order = Order::new(&[4_096], config).unwrap();
        let start = order.epoch(0).rotation;
        for step in 0..order.steps_per_epoch() {
            for slot in 0..4 {
                let id = order.sample(step, 0, slot).0;
                let place = (id + 4_096 - start) % 4_096;
                assert_eq!(place / 16, (step * 4 + u64::from(slot)) / 16);
            }
        }
    }

    #[test]
    fn lanes_that_do_not_divide_the_batch_are_refused() {
        let error = Order::new(&[100], OrderConfig { lanes: 5, ..CONFIG }).unwrap_err();
        assert!(error.to_string().starts_with("`lanes` is 5, which does not divide"), "{error}");
    }

    #[test]
    fn a_data_set_smaller_than_one_batch_is_refused() {
        let error = Order::new(&[5, 6], CONFIG).unwrap_err();
        assert!(error.to_string().contains("is 12, but the data set has 11 samples"), "{error}");
        assert!(Order::new(&[], CONFIG).is_err());
    }

    fn orders() -> impl Strategy<Value = (Vec<u64>, OrderConfig)> {
        let sizes = prop::collection::vec(0_u64..60, 1..8);
        (sizes, any::<u64>(), 1_u32..6, 1_u32..5, 1_u64..40)
            .prop_map(|(sizes, seed, lanes, slots, shuffle_block)| {
                (sizes, OrderConfig { seed, global_batch: lanes * slots, lanes, shuffle_block })
            })
            .prop_filter("at least one batch", |(sizes, config)| {
                sizes.iter().sum::<u64>() >= u64::from(config.global_batch)
            })
    }

    proptest! {
        #[test]
        fn a_data_epoch_covers_whole_batches_without_a_duplicate(
            (sizes, config) in orders(),
            data_epoch in 0_u64..1_000,
        ) {
            let order = Order::new(&sizes, config).unwrap();
            let steps = order.steps_per_epoch();
            let samples: u64 = sizes.iter().sum();
            let first = data_epoch * steps;
            let seen: BTreeSet<_> =
                (first..first + steps).flat_map(|c| order.batch(c, 0..config.lanes)).collect();
            prop_assert_eq!(seen.len() as u64, steps * u64::from(config.global_batch));
            prop_assert!(seen.iter().all(|id| id.0 < samples));
        }

        #[test]
        fn the_batch_does_not_depend_on_how_lanes_are_dealt(
            (sizes, config) in orders(),
            cursor in 0_u64..1_000,
            cut: u32,
        ) {
            let order = Order::new(&sizes, config).unwrap();
            let cut = cut % (config.lanes + 1);
            let mut dealt = order.batch(cursor, 0..cut);
            dealt.extend(order.batch(cursor, cut..config.lanes));
            prop_assert_eq!(dealt, order.batch(cursor, 0..config.lanes));
        }

        #[test]
        fn shards_are_named_ahead_of_the_batches_that_read_them(
            (sizes, config) in orders(),
            cursor in 0_u64..1_000,
            ahead in 0_usize..4,
        ) {
            let order = Order::new(&sizes, config).unwrap();
            let shard_of = |id: SampleId| order.starts.partition_point(|start| *start <= id.0) - 1;
            let (step, slots) = (cursor % order.steps_per_epoch(), u64::from(order.slots()));
            let block = |slot: u64| (step * slots + slot) / config.shuffle_block;
            let (first, end) = (block(0), block(slots - 1) + 1);
            for lane in 0..config.lanes {
                // The runs of neighbours on the line, one place after the other.
                let (mut runs, mut of_batch) = (Vec::new(), 0);
                for (nth, data_epoch) in (order.data_epoch(cursor)..).take(2).enumerate() {
                    let epoch = order.epoch(data_epoch);
                    let skipped = if nth == 0 { first * config.shuffle_block } else { 0 };
                    let mut before = None;
                    for place in skipped..epoch.lane_len() {
                        let id = epoch.at(u64::from(lane) * epoch.lane_len() + place);
                        if before.is_none_or(|b: SampleId| b.0 + 1 != id.0 || shard_of(b) != shard_of(id)) {
                            runs.push(shard_of(id));
                        }
                        before = Some(id);
                        if nth == 0 && place < end * config.shuffle_block {
                            of_batch = runs.len();
                        }
                    }
                }
                runs.truncate(of_batch + ahead);
                let named = order.shards_ahead(cursor, lane..lane + 1, ahead);
                prop_assert_eq!(named.iter().collect::<BTreeSet<_>>(), runs.iter().collect());
                let read = order.batch(cursor, lane..lane + 1);
                prop_assert!(read.into_iter().all(|id| named.contains(&shard_of(id))));
            }
            let all = order.shards_ahead(cursor, 0..config.lanes, ahead);
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
    }
}
