//! Batch norm over the whole global batch (with `accumulate`, over a micro-batch of all ranks), for each view
//! and each network apart.
//!
//! Forward sends one message per layer, with Σx and Σx² of all streams; backward one, with Σg and Σg·x̂.
//! Both travel in f64, so that the statistics hardly depend on how samples are spread over ranks.

use lockstep_collective::CollectiveError;
use tch::Tensor;

use crate::kernels::{self, After, Moments, Sums};
use crate::layout::{Layout, ParamId, Role, StatsSpec};
use crate::pass::{Backward, BatchStatistics, Forward, Mode, VIEWS, Weights, sum_over_ranks};

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
        let [gamma, beta] = [self.gamma, self.beta].map(|id| weights.masters.values(id));
        kernels::normalize(x, moments, (&gamma, &beta), after)
    }

    /// The output once more, bit for bit, where a ReLU and nothing else followed.
    pub(crate) fn output(&self, pass: &Backward<'_>, saved: &Saved) -> Tensor {
        self.normalize(pass.weights, &saved.x, &saved.moments, After::Relu)
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
        let mut sums = kernels::gradient_sums(&mut dy, y, x, moments);
        let [d_beta, d_gamma] = [0, 1].map(|which| self.over_views(&sums, which));
        pass.sink.put_host(self.beta, &d_beta)?;
        pass.sink.put_host(self.gamma, &d_gamma)?;
        sum_over_ranks(pass.comm, &mut sums)?;
        let count = pass.images * spatial(x);
        let gamma = pass.weights.masters.values(self.gamma);
        let dx = kernels::input_gradient(&dy, x, moments, &gamma, (&sums, count));
        Ok((dx, dy))
    }

    /// Mean and variance over all ranks, of every stream and view; also moves the running averages.
    fn batch_moments(
        &self,
        batch: &mut BatchStatistics<'_>,
        xs: &[Tensor],
    ) -> Result<Vec<Moments>, CollectiveError> {
        let mut all: Vec<f64> = xs.iter().flat_map(|x| kernels::sums(x, VIEWS)).collect();
        batch.reduce(&mut all)?;
        let count = batch.images * spatial(&xs[0]);
        let channels = self.spec.channels;
        let moments = all.chunks(2 * VIEWS * channels).enumerate().map(|(stream, sums)| {
            let (mut mean, mut inv_std) = (Vec::new(), Vec::new());
            for view in sums.chunks(2 * channels) {
                let (sum, square) = view.split_at(channels);
                let m: Vec<f64> = sum.iter().map(|s| s / count).collect();
                let variance: Vec<f64> =
                    square.iter().zip(&m).map(|(s, m)| not_negative(s / count - m * m)).collect();
                batch.observe((stream, &self.spec), count, &m, &variance);
                inv_std.extend(variance.iter().map(|v| 1.0 / (v + self.eps).sqrt()));
                mean.extend(m);
            }
            Moments { mean, inv_std }
        });
        Ok(moments.collect())
    }

    fn running_moments(&self, running: &crate::store::Running) -> Moments {
        let (mean, variance) = running.split(&self.spec);
        let inv_std = variance.iter().map(|v| 1.0 / (v + self.eps).sqrt()).collect();
        Moments { mean: mean.to_vec(), inv_std }
    }

    /// One of the two sums of every channel, added over the views: gradients of β and γ.
    fn over_views(&self, sums: &Sums, which: usize) -> Vec<f64> {
        let channels = self.spec.channels;
        let of_view = |view: usize| &sums[(2 * view + which) * channels..][..channels];
        of_view(0).iter().zip(of_view(1)).map(|(a, b)| a + b).collect()
    }
}

/// Values of one channel in one image: H·W, or 1 behind the pooling.
fn spatial(x: &Tensor) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "images have fewer than 2^53 pixels")]
    let values = x.size()[2..].iter().product::<i64>() as f64;
    values
}

/// Rounding can leave a variance of 0 slightly below; NaN stays NaN, to be seen.
fn not_negative(variance: f64) -> f64 {
    if variance < 0.0 { 0.0 } else { variance }
}
