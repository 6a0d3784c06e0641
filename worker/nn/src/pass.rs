//! What a layer needs to run: whose weights, which statistics, where gradients go.
//!
//! A forward pass walks several *streams* through the same layers at once (a wavefront): in training the
//! online and the target network, each over both views stacked along the batch. One layer's batch-norm
//! statistics of all streams then travel in one message. Only stream 0 is ever differentiated.

use lockstep_collective::{CollectiveError, Rank};
use tch::{Kind, Tensor};

use crate::gradients::Gradients;
use crate::layout::{ParamId, StatsSpec};
use crate::spec::ModelSpec;
use crate::store::{Running, Store, signed};
use crate::talk::Talk;

/// The weights of one network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// What the optimizer moves.
    pub(crate) masters: &'a Store,
    /// The same values in the type that is computed in; the masters themselves where that is theirs.
    pub(crate) working: &'a Store,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(masters: &'a Store, working: Option<&'a Store>) -> Self {
        Self { masters, working: working.unwrap_or(masters) }
    }
}

/// Weights and running statistics of one stream's network.
#[derive(Debug)]
pub(crate) struct Network<'a> {
    pub(crate) weights: Weights<'a>,
    pub(crate) running: &'a Running,
}

/// A forward pass.
pub(crate) struct Forward<'a> {
    /// The network of each stream.
    pub(crate) networks: Vec<Network<'a>>,
    /// What batch norm normalizes with.
    pub(crate) mode: Mode<'a>,
    /// Keep convolutions' outputs only, and compute what follows them again in backward.
    pub(crate) recompute: bool,
}

/// What batch norm normalizes with.
pub(crate) enum Mode<'a> {
    /// Statistics of the batch, for each group of each view apart.
    Batch(BatchStatistics<'a>),
    /// Running averages.
    Evaluate,
}

/// Views that are stacked in a training batch.
pub(crate) const VIEWS: usize = 2;

/// Which images of one view in a micro-batch batch norm normalizes together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouping {
    /// Images of a group, over all ranks.
    pub(crate) images: f64,
    /// Groups on this rank.
    pub(crate) local: usize,
    /// Groups over all ranks.
    pub(crate) total: f64,
    /// Whether a group has images on all ranks, so that its sums travel.
    pub(crate) global: bool,
}

impl Grouping {
    /// For `rows` images of one view on this rank.
    pub(crate) fn new(spec: &ModelSpec, rows: i64) -> Self {
        let slots = spec.global_batch / spec.lanes / spec.accumulate;
        if spec.bn_group == 0 {
            let images = f64::from(spec.lanes * slots);
            return Self { images, local: 1, total: 1.0, global: true };
        }
        let images = spec.bn_group * slots;
        Self {
            images: images.into(),
            local: usize::try_from(rows / i64::from(images)).expect("rows are counted from 0"),
            total: f64::from(spec.lanes / spec.bn_group),
            global: false,
        }
    }
}

/// Training: how statistics are made and what becomes of them.
pub(crate) struct BatchStatistics<'a> {
    /// Sums over the ranks.
    pub(crate) talk: Talk<'a>,
    /// What is normalized together.
    pub(crate) grouping: Grouping,
    /// Running averages as they will be if the step is applied, per stream; see [`BatchStatistics::finish`].
    pub(crate) next: Vec<Running>,
    /// Share of the old average that is kept.
    pub(crate) decay: f64,
}

impl Forward<'_> {
    /// Whether layers must keep what backward needs.
    pub(crate) fn keeps(&self) -> bool {
        matches!(self.mode, Mode::Batch(_))
    }

    /// One parameter of one stream's network.
    pub(crate) fn param(&self, stream: usize, id: ParamId) -> &Tensor {
        self.networks[stream].weights.working.get(id)
    }
}

impl<'a> BatchStatistics<'a> {
    /// `next`: running averages before the pass.
    pub(crate) fn new(
        talk: Talk<'a>,
        grouping: Grouping,
        mut next: Vec<Running>,
        decay: f64,
    ) -> Self {
        if !grouping.global && talk.comm.rank() != Rank(0) {
            next.iter_mut().for_each(Running::clear);
        }
        Self { talk, grouping, next, decay }
    }

    /// As [`Talk::reduce`].
    pub(crate) fn reduce(&mut self, sums: Tensor) -> Result<Tensor, CollectiveError> {
        self.talk.reduce(self.grouping, sums)
    }

    /// Running averages behind the pass, alike on all ranks.
    ///
    /// Where groups stay on their rank, each rank has moved its own by its groups' share of the mean over
    /// all groups, and only rank 0 has the old ones in it. Updates are linear, so the sum is as if every rank
    /// had seen all groups.
    pub(crate) fn finish(mut self) -> Result<Vec<Running>, CollectiveError> {
        if !self.grouping.global {
            let own: Vec<&Tensor> = self.next.iter().map(Running::flat).collect();
            let all = self.talk.sum_over_ranks(Tensor::stack(&own, 0))?;
            self.talk.settle()?; // backward has no sums to wait for
            for (stream, next) in (0..).zip(&mut self.next) {
                next.flat_mut().copy_(&all.get(stream));
            }
        }
        Ok(self.next)
    }

    /// Moves the running averages of every stream by each view's mean and (biased) variance over `count` values,
    /// averaged over the groups. The stored variance is the unbiased one, as PyTorch stores it.
    pub(crate) fn observe(
        &mut self,
        spec: &StatsSpec,
        count: f64,
        mean: &Tensor,
        variance: &Tensor,
    ) {
        let unbiased = count / (count - 1.0).max(1.0);
        let Self { grouping, decay, .. } = *self;
        let (local, channels) = (signed(grouping.local), signed(spec.channels));
        // [streams, views, groups, C]
        let over_groups = |x: &Tensor| {
            let shares = x.view([-1, signed(VIEWS), local, channels]) / grouping.total;
            shares.sum_dim_intlist([2_i64].as_slice(), false, Kind::Double)
        };
        let (mean, variance) = (over_groups(mean), over_groups(variance));
        let new = [mean * (1.0 - decay), variance * (1.0 - decay) * unbiased];
        let new = Tensor::cat(&new, 2);
        // The predictor is in stream 0 only.
        for (stream, next) in (0..new.size()[0]).zip(&mut self.next) {
            for view in 0..signed(VIEWS) {
                next.move_by(spec, decay, &new.get(stream).get(view));
            }
        }
    }
}

/// A backward pass of the online network.
pub(crate) struct Backward<'a> {
    pub(crate) weights: Weights<'a>,
    /// As in [`BatchStatistics`].
    pub(crate) grouping: Grouping,
    /// Receives each gradient as soon as it is final.
    pub(crate) sink: Gradients<'a>,
    /// Sums batch-norm gradients over the ranks.
    pub(crate) talk: Talk<'a>,
}
