//! Batch norm over the whole global batch (with `accumulate`, over a micro-batch of all ranks; with
//! `bn_group`, over the lanes of a group), for each view and each network apart.
//!
//! Forward sends one message per layer, with Σx and Σx² of all streams; backward one, with Σg and Σg·x̂.
//! Both travel in f64, so that the statistics hardly depend on how samples are spread over ranks. Groups lie
//! whole on a rank, so theirs do not travel; only the running averages do, once for all layers (`pass.rs`).
//!
//! All of it stays on the device, where nobody waits for it. Names end in `s` streams, `g` groups of both views, `w` which
//! of the two sums, `c` channels.

use lockstep_collective::CollectiveError;
use tch::{Kind, Tensor};

use crate::kernels::{self, After, Moments};
use crate::layout::{Layout, ParamId, Role, StatsSpec};
use crate::pass::{Backward, BatchStatistics, Forward, Mode, VIEWS, Weights};
use crate::store::{Running, signed};

/// γ·(x − mean)/√(variance + ε) + β, per channel.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    gamma: ParamId,
    beta: ParamId,
    spec: StatsSpec,
    eps: f64,
}

/// What backward needs.
#[derive(Debug)]
pub(crate) struct Saved {
    x: Tensor,
    moments: Moments,
}

impl Saved {
    /// What was normalized.
    pub(crate) fn input(&self) -> &Tensor {
        &self.x
    }
}

impl BatchNorm {
    pub(crate) fn new(layout: &mut Layout, name: &str, channels: i64, gamma: f64) -> Self {
        let width = usize::try_from(channels).expect("channels are positive");
        let spec = layout.stats(name.to_owned(), width);
        Self {
            gamma: layout.param(format!("{name}.weight"), &[channels], Role::Gamma(gamma)),
            beta: layout.param(format!("{name}.bias"), &[channels], Role::Beta),
            spec,
            eps: layout.bn_eps(),
        }
    }

    /// Normalizes every stream. `after(stream)` says what follows.
    pub(crate) fn forward<'t>(
        &self,
        pass: &mut Forward<'_>,
        xs: &[Tensor],
        after: impl Fn(usize) -> After<'t>,
    ) -> Result<(Vec<Tensor>, Saved), CollectiveError> {
        let moments = match &mut pass.mode {
            Mode::Batch(batch) => self.batch_moments(batch, xs)?,
            Mode::Evaluate => {
                pass.networks.iter().map(|n| self.running_moments(n.running)).collect()
            }
        };
        let ys: Vec<Tensor> = xs
            .iter()
            .zip(&moments)
            .enumerate()
            .map(|(stream, (x, moments))| {
                self.normalize(pass.networks[stream].weights, x, moments, after(stream))
            })
            .collect();
        let moments = moments.into_iter().next().expect("there is a stream 0");
        Ok((ys, Saved { x: xs[0].shallow_clone(), moments }))
    }

    fn normalize(
        &self,
        weights: Weights<'_>,
        x: &Tensor,
        moments: &Moments,
        after: After<'_>,
    ) -> Tensor {
        let [gamma, beta] = [self.gamma, self.beta].map(|id| exact(weights, id));
        kernels::normalize(x, moments, (&gamma, &beta), after)
    }

    /// The output once more, bit for bit.
    pub(crate) fn output(&self, pass: &Backward<'_>, saved: &Saved, after: After<'_>) -> Tensor {
        self.normalize(pass.weights, &saved.x, &saved.moments, after)
    }

    /// Takes the gradient of the output, and the output `y` where a ReLU followed; returns the gradients of
    /// the input and of what the ReLU saw.
    pub(crate) fn backward(
        &self,
        pass: &mut Backward<'_>,
        saved: &Saved,
        y: Option<&Tensor>,
        mut dy: Tensor,
    ) -> Result<(Tensor, Tensor), CollectiveError> {
        let Saved { x, moments } = saved;
        let sums = kernels::gradient_sums(&mut dy, y, x, moments);
        let over_groups = sums.sum_dim_intlist([0_i64].as_slice(), false, Kind::Double);
        for (which, param) in [(0, self.beta), (1, self.gamma)] {
            pass.sink.put(param, &over_groups.get(which))?;
        }
        let sums = pass.talk.reduce(pass.grouping, sums)?;
        let count = pass.grouping.images * spatial(x);
        let gamma = exact(pass.weights, self.gamma);
        let dx = kernels::input_gradient(&dy, x, moments, &gamma, (&sums, count));
        Ok((dx, dy))
    }

    /// Moments of every group of every stream and view; also moves the running averages.
    fn batch_moments(
        &self,
        batch: &mut BatchStatistics<'_>,
        xs: &[Tensor],
    ) -> Result<Vec<Moments>, CollectiveError> {
        let groups = VIEWS * batch.grouping.local;
        let sums: Vec<Tensor> = xs.iter().map(|x| kernels::sums(x, groups)).collect();
        let sums_sgwc = batch.reduce(Tensor::stack(&sums, 0))?;
        let count = batch.grouping.images * spatial(&xs[0]);
        let mean_sgc = sums_sgwc.select(2, 0) / count;
        // Rounding can leave a variance of 0 slightly below; NaN stays NaN, to be seen.
        let variance_sgc = (sums_sgwc.select(2, 1) / count - &mean_sgc * &mean_sgc).clamp_min(0.0);
        batch.observe(&self.spec, count, &mean_sgc, &variance_sgc);
        let inv_std_sgc = self.inv_std(&variance_sgc);
        let of_stream =
            |stream| Moments { mean: mean_sgc.get(stream), inv_std: inv_std_sgc.get(stream) };
        Ok((0..signed(xs.len())).map(of_stream).collect())
    }

    fn running_moments(&self, running: &Running) -> Moments {
        let (mean, variance) = running.split(&self.spec);
        Moments { inv_std: self.inv_std(&variance.unsqueeze(0)), mean: mean.unsqueeze(0) }
    }

    fn inv_std(&self, variance: &Tensor) -> Tensor {
        (variance + self.eps).sqrt().reciprocal()
    }
}

/// A parameter's master in f64, as the kernels want γ and β.
fn exact(weights: Weights<'_>, id: ParamId) -> Tensor {
    weights.masters.get(id).to_kind(Kind::Double)
}

/// Values of one channel in one image: H·W, or 1 behind the pooling.
fn spatial(x: &Tensor) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "images have fewer than 2^53 pixels")]
    let values = x.size()[2..].iter().product::<i64>() as f64;
    values
}
