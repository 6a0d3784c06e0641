//! Gradient buckets: stretches of the flat gradient buffer that are all-reduced together.
//!
//! Place in the step: the backward pass reports each gradient as soon as it is final to a
//! [`Tracker`]; a bucket whose last gradient arrived is reduced on the communication thread while
//! the layers below are still being computed.
//!
//! Two rules keep ranks in step:
//!
//! 1. the plan depends only on the parameter list, so every rank makes the same one; compare
//!    [`Plan::fingerprint`] at start;
//! 2. buckets are launched in plan order, even if a later one fills first.
//!
//! Not here: the reduction itself ([`Collective`](crate::Collective)).

use std::ops::Range;

/// Some neighbouring parameters, and where their gradients lie in the flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Indices in layout order.
    pub params: Range<usize>,
    /// Elements of the flat buffer.
    pub elements: Range<usize>,
}

/// Which parameter goes into which bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    buckets: Vec<Bucket>,
    params: usize,
}

impl Plan {
    /// Packs parameters, last first, into buckets of at most `capacity` elements.
    ///
    /// `lengths` are elements per parameter in layout order, padding included: parameter 0
    /// starts at offset 0 and each begins where the one before ends. Last first, since the
    /// backward pass finishes them in that order. A parameter larger than `capacity` gets a
    /// bucket of its own.
    pub fn new(lengths: &[usize], capacity: usize) -> Self {
        let mut buckets: Vec<Bucket> = Vec::new();
        let mut end = lengths.iter().sum();
        for (param, &len) in lengths.iter().enumerate().rev() {
            let start = end - len;
            match buckets.last_mut() {
                Some(bucket) if bucket.elements.len() + len <= capacity => {
                    bucket.params.start = param;
                    bucket.elements.start = start;
                }
                _ => buckets.push(Bucket { params: param..param + 1, elements: start..end }),
            }
            end = start;
        }
        Self { buckets, params: lengths.len() }
    }

    /// Buckets in the order they are launched.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Same on two ranks that made the same plan (64-bit FNV-1a, stable across builds).
    pub fn fingerprint(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        self.buckets
            .iter()
            .flat_map(|b| [b.params.start, b.params.end, b.elements.start, b.elements.end])
            .flat_map(|word| (word as u64).to_le_bytes())
            .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    }
}

/// Follows one backward pass: which gradients are final, and which buckets may leave.
#[derive(Debug, Clone)]
pub struct Tracker {
    /// Bucket of each parameter.
    bucket_of: Vec<usize>,
    /// Gradients still missing, by bucket.
    missing: Vec<usize>,
    /// Parameters whose gradient is final.
    seen: Vec<bool>,
    /// Buckets launched so far.
    launched: usize,
}

impl Tracker {
    /// At the start of a backward pass over `plan`'s parameters.
    pub fn new(plan: &Plan) -> Self {
        let mut bucket_of = vec![0; plan.params];
        for (index, bucket) in plan.buckets.iter().enumerate() {
            bucket_of[bucket.params.clone()].fill(index);
        }
        Self {
            bucket_of,
            missing: plan.buckets.iter().map(|bucket| bucket.params.len()).collect(),
            seen: vec![false; plan.params],
            launched: 0,
        }
    }

    /// Notes that `param`'s gradient is final. Returns the buckets (indices into
    /// [`Plan::buckets`]) to launch now, in order; often none.
    ///
    /// # Panics
    ///
    /// If the parameter is unknown or was ready before: the backward pass is wrong.
    pub fn ready(&mut self, param: usize) -> Range<usize> {
        assert!(param < self.seen.len(), "parameter {param} of {}", self.seen.len());
        assert!(!self.seen[param], "parameter {param} became ready twice in one backward pass");
        self.seen[param] = true;
        self.missing[self.bucket_of[param]] -= 1;
        let first = self.launched;
        let full = self.missing[first..].iter().take_while(|&&missing| missing == 0).count();
        self.launched += full;
        first..self.launched
    }

    /// Whether every bucket was launched.
    pub fn is_complete(&self) -> bool {
        self.launched == self.missing.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_layers_are_reduced_first() {
        let plan = Plan::new(&[10, 10, 10], 20);
        assert_eq!(
            plan.buckets(),
            [Bucket { params: 1..3, elements: 10..30 }, Bucket { params: 0..1, elements: 0..10 }]
        );
    }

    #[test]
    fn moving_one_parameter_to_another_bucket_changes_the_fingerprint() {
        let (small, large) = (Plan::new(&[10, 10, 10], 20), Plan::new(&[10, 10, 10], 30));
        assert_ne!(small.fingerprint(), large.fingerprint());
    }

    #[test]
    fn a_bucket_that_fills_early_waits_for_the_one_before_it() {
        let mut tracker = Tracker::new(&Plan::new(&[10, 10, 10], 20));
        assert_eq!(tracker.ready(0), 0..0);
        assert_eq!(tracker.ready(2), 0..0);
        assert_eq!(tracker.ready(1), 0..2);
        assert!(tracker.is_complete());
    }

    #[test]
    #[should_panic(expected = "parameter 1 became ready twice")]
    fn a_gradient_that_is_final_twice_is_our_bug() {
        let mut tracker = Tracker::new(&Plan::new(&[1, 1], 8));
        assert!(tracker.ready(1).is_empty());
        tracker.ready(1);
    }

    proptest! {
        #[test]
        fn buckets_tile_the_flat_buffer_from_its_end_to_its_start(
            lengths in prop::collection::vec(0_usize..200, 0..60), capacity in 0_usize..400,
        ) {
            let plan = Plan::new(&lengths, capacity);
            let mut next = (lengths.len(), lengths.iter().sum::<usize>());
            for bucket in plan.buckets() {
                prop_assert_eq!((bucket.params.end, bucket.elements.end), next);
                next = (bucket.params.start, bucket.elements.start);
                let elements = lengths[bucket.params.clone()].iter().sum::<usize>();
                prop_assert_eq!(bucket.elements.len(), elements);
                prop_assert!(elements <= capacity || bucket.params.len() == 1);
            }
            prop_assert_eq!(next, (0, 0));
        }

        #[test]
        fn every_bucket_leaves_once_in_plan_order_and_only_when_full(
            (lengths, params) in lengths_and_an_order(), capacity in 0_usize..200,
        ) {
            let plan = Plan::new(&lengths, capacity);
            let mut tracker = Tracker::new(&plan);
            let (mut launched, mut ready) = (0, vec![false; lengths.len()]);
            for param in params {
                ready[param] = true;
                for bucket in tracker.ready(param) {
                    prop_assert_eq!(bucket, launched);
                    launched += 1;
                    prop_assert!(plan.buckets()[bucket].params.clone().all(|p| ready[p]));
                }
            }
            prop_assert!(tracker.is_complete());
            prop_assert_eq!(launched, plan.buckets().len());
        }
    }

    /// Parameter lengths, and an order in which their gradients become final.
    fn lengths_and_an_order() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
        prop::collection::vec(0_usize..50, 1..40).prop_flat_map(|lengths| {
            let params: Vec<_> = (0..lengths.len()).collect();
            (Just(lengths), Just(params).prop_shuffle())
        })
    }
}
