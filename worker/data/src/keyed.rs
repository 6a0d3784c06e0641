//! Random numbers by address: the same key and index always give the same bits.
//!
//! There is no generator to advance, so nothing to save, restore or share. A
//! [`Key`] is narrowed step by step, seed → purpose → data epoch → sample …,
//! and asked for the draw at an index. Under it is Philox4x32-10, a bijection
//! of 128-bit counters (Salmon et al. 2011, "Parallel random numbers: as easy
//! as 1, 2, 3"), checked here against that paper's published vectors.
//!
//! Permutations come in two forms: [`shuffle`] for what is in memory anyway,
//! unbiased, and [`Permutation`] for any range, one position at a time.

const ROUND_MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const FEISTEL_ROUNDS: u32 = 8;

/// Philox4x32-10: 128 random bits for a counter and a key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (high0, low0) = wide_product(ROUND_MULTIPLIERS[0], counter[0]);
        let (high1, low1) = wide_product(ROUND_MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(KEY_INCREMENTS[0]), key[1].wrapping_add(KEY_INCREMENTS[1])];
    }
    counter
}

/// What a derived key is for; keys of different purposes never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Order of samples in a data set that is being packed.
    Pack = 1,
    /// Order of samples in a data epoch.
    Order = 2,
    /// Order inside one lane.
    Lane = 3,
    /// Order inside one block of a lane.
    Block = 4,
    /// Order of the shards.
    Shards = 5,
    /// Augmentations of a data epoch.
    Augment = 6,
    /// Augmentations of one sample.
    Sample = 7,
    /// Augmentations of one view of it.
    View = 8,
    /// Order of the steps of colour jitter.
    Jitter = 9,
}

/// Names a stream of draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The root of all keys of a run.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The key for one `index` of a narrower `purpose`.
    #[must_use]
    pub fn derive(self, purpose: Purpose, index: u64) -> Self {
        Self(self.block(index, purpose as u32))
    }

    /// 64 random bits.
    pub fn bits(self, index: u64) -> u64 {
        self.block(index, 0)
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    pub fn unit(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `low..high`, for `low <= high`.
    pub fn between(self, index: u64, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit(index)
    }

    /// Uniform in `0..limit`; the bias is below `limit`/2⁶⁴.
    pub fn below(self, index: u64, limit: u64) -> u64 {
        let product = u128::from(self.bits(index)) * u128::from(limit);
        upper_half(product)
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a usize")]
    fn below_len(self, index: u64, len: usize) -> usize {
        self.below(index, len as u64) as usize
    }

    fn block(self, index: u64, tag: u32) -> u64 {
        let [low, high] = halves(index);
        let out = philox4x32([low, high, tag, 0], halves(self.0));
        u64::from(out[0]) | u64::from(out[1]) << 32
    }
}

/// Shuffles in place, every order equally likely (Fisher–Yates).
pub fn shuffle<T>(items: &mut [T], key: Key) {
    for last in (1..items.len()).rev() {
        items.swap(last, key.below_len(last as u64, last + 1));
    }
}

/// A keyed bijection of `0..len` that is computed, not stored.
///
/// A balanced Feistel network permutes the next power of four; a result outside
/// the range is permuted again until it falls inside (cycle walking, fewer than
/// four rounds on average), which keeps it a bijection.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    key: Key,
    len: u64,
    half_bits: u32,
}

impl Permutation {
    /// The permutation of `0..len` that `key` names.
    pub fn new(key: Key, len: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self { key, len, half_bits: bits.div_ceil(2).max(1) }
    }

    /// Where `position` goes.
    ///
    /// # Panics
    ///
    /// If `position` is not below the length.
    pub fn at(&self, position: u64) -> u64 {
        assert!(position < self.len, "position {position} of a permutation of {}", self.len);
        let mut value = self.network(position);
        while value >= self.len {
            value = self.network(value);
        }
        value
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..FEISTEL_ROUNDS {
            let [low, high] = halves(right);
            let mixed = philox4x32([low, high, round, 1], halves(self.key.0))[0];
            (left, right) = (right, left ^ (u64::from(mixed) & mask));
        }
        left << self.half_bits | right
    }
}

fn wide_product(a: u32, b: u32) -> (u32, u32) {
    let [low, high] = halves(u64::from(a) * u64::from(b));
    (high, low)
}

fn upper_half(value: u128) -> u64 {
    (value >> 64) as u64
}

/// Lower and upper half.
#[expect(clippy::cast_possible_truncation, reason = "taking the halves apart is the purpose")]
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        let ones = u32::MAX;
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn draws_are_spread_evenly_over_the_unit_interval() {
        let key = Key::new(7).derive(Purpose::Augment, 3);
        let mut counts = [0_u32; 10];
        for index in 0..100_000 {
            let draw = key.below(index, 10);
            counts[usize::try_from(draw).unwrap()] += 1;
            assert!((0.0..1.0).contains(&key.unit(index)));
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn keys_of_different_purpose_or_index_differ() {
        let key = Key::new(7);
        assert_ne!(key.derive(Purpose::Sample, 1), key.derive(Purpose::View, 1));
        assert_ne!(key.derive(Purpose::Sample, 1), key.derive(Purpose::Sample, 2));
        assert_ne!(key.derive(Purpose::Sample, 1), Key::new(8).derive(Purpose::Sample, 1));
    }

    #[test]
    fn every_order_of_three_items_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6_000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, Key::new(seed));
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (880..1_120).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_permutation_has_no_fixed_structure() {
        // The mean distance between neighbours of a random order is a third of the length.
        let permutation = Permutation::new(Key::new(5), 4096);
        let total: u64 = (1..4096).map(|i| permutation.at(i).abs_diff(permutation.at(i - 1))).sum();
        assert!((1_250..1_480).contains(&(total / 4095)), "{}", total / 4095);
    }

    proptest! {
        #[test]
        fn a_permutation_reaches_every_position_once(seed: u64, len in 1_u64..2_000) {
            let permutation = Permutation::new(Key::new(seed), len);
            let mut seen: Vec<_> = (0..len).map(|i| permutation.at(i)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn a_permutation_works_on_any_range(seed: u64, len in 1_u64.., position: u64) {
            let position = position % len;
            prop_assert!(Permutation::new(Key::new(seed), len).at(position) < len);
        }
    }
}
