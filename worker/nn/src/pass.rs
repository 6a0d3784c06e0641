//! What a layer needs to run: whose weights, which statistics, where gradients go.
//!
//! A forward pass walks several *streams* through the same layers at once (a wavefront): in training the
//! online and the target network, each over both views stacked along the batch. One layer's batch-norm
//! statistics of all streams then travel in one message. Only stream 0 is ever differentiated.

use lockstep_collective::{Collective, CollectiveError, Reduction};
use tch::Tensor;

use crate::gradients::Gradients;
use crate::layout::{ParamId, StatsSpec};
use crate::store::{Running, Store};

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
    /// Statistics of the batch, over all ranks, for each view apart.
    Batch(BatchStatistics<'a>),
    /// Running averages.
    Evaluate,
}

/// Views that are stacked in a training batch.
pub(crate) const VIEWS: usize = 2;

/// Training: how statistics are made and what becomes of them.
pub(crate) struct BatchStatistics<'a> {
    /// Sums over the ranks.
    pub(crate) comm: &'a mut dyn Collective,
    /// Images of one view that are normalized together, over all ranks: N / A.
    pub(crate) images: f64,
    /// Running averages as they will be if the step is applied, per stream.
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

impl BatchStatistics<'_> {
    /// Sums `values` over the ranks.
    pub(crate) fn reduce(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        sum_over_ranks(self.comm, values)
    }

    /// Moves the running averages of one stream by one view's mean and (biased) variance over `count`
    /// values. The stored variance is the unbiased one, as PyTorch stores it.
    pub(crate) fn observe(
        &mut self,
        (stream, spec): (usize, &StatsSpec),
        count: f64,
        mean: &[f64],
        variance: &[f64],
    ) {
        let unbiased = count / (count - 1.0).max(1.0);
        let decay = self.decay;
        let (means, variances) = self.next[stream].split_mut(spec);
        for (old, new) in means.iter_mut().zip(mean) {
            *old = decay * *old + (1.0 - decay) * new;
        }
        for (old, new) in variances.iter_mut().zip(variance) {
            *old = decay * *old + (1.0 - decay) * new * unbiased;
        }
    }
}

/// Sums statistics over the ranks, and waits for them.
pub(crate) fn sum_over_ranks(
    comm: &mut dyn Collective,
    values: &mut [f64],
) -> Result<(), CollectiveError> {
    let _span = tracing::trace_span!("statistics").entered();
    comm.all_reduce(values.into(), Reduction::Sum)
}

/// A backward pass of the online network.
pub(crate) struct Backward<'a> {
    pub(crate) weights: Weights<'a>,
    /// As in [`BatchStatistics`].
    pub(crate) images: f64,
    /// Receives each gradient as soon as it is final.
    pub(crate) sink: Gradients<'a>,
    /// Sums batch-norm gradients over the ranks.
    pub(crate) comm: &'a mut dyn Collective,
}
