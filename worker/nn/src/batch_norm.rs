//! Batch norm over the whole global batch (with `accumulate`, over a micro-batch of all ranks; with
//! `bn_group`, over the lanes of a group), for each view and each network apart.
//!
//! Forward sends one message per layer, with Σx and Σx² of all streams; backward one, with Σg and Σg·x̂.
//! Both travel in f64, so that the statistics hardly depend on how samples are spread over ranks. Groups lie
//! whole on a rank, so theirs do not travel; only the running averages do, once for all layers (`pass.rs`).

use lockstep_collective::CollectiveError;
use tch::Tensor;

use crate::kernels::{self, After, Moments, Sums};
use crate::layout::{Layout, ParamId, Role, StatsSpec};
use crate::pass::{Backward, BatchStatistics, Forward, Grouping, Mode, VIEWS, Weights};

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
        let mut sums = kernels::gradient_sums(&mut dy, y, x, moments);
        let [d_beta, d_gamma] = [0, 1].map(|which| self.over_groups(&sums, which));
        pass.sink.put_host(self.beta, &d_beta)?;
        pass.sink.put_host(self.gamma, &d_gamma)?;
        pass.grouping.reduce(pass.comm, &mut sums)?;
        let count = pass.grouping.images * spatial(x);
        let gamma = pass.weights.masters.values(self.gamma);
        let dx = kernels::input_gradient(&dy, x, moments, &gamma, (&sums, count));
        Ok((dx, dy))
    }

    /// Mean and variance of every group of every stream and view; also moves the running averages.
    fn batch_moments(
        &self,
        batch: &mut BatchStatistics<'_>,
        xs: &[Tensor],
    ) -> Result<Vec<Moments>, CollectiveError> {
        let Grouping { images, local, total, .. } = batch.grouping;
        let mut all: Vec<f64> = xs.iter().flat_map(|x| kernels::sums(x, VIEWS * local)).collect();
        batch.reduce(&mut all)?;
        let count = images * spatial(&xs[0]);
        let channels = self.spec.channels;
        let streams = all.chunks(2 * VIEWS * local * channels).enumerate();
        let moments = streams.map(|(stream, sums)| {
            let (mut means, mut inv_std) = (Vec::new(), Vec::new());
            for view in sums.chunks(2 * local * channels) {
                let mut seen = [vec![0.0; channels], vec![0.0; channels]];
                for group in view.chunks(2 * channels) {
                    let (mean, variance) = mean_and_variance(group, count);
                    for (seen, new) in seen.iter_mut().zip([&mean, &variance]) {
                        seen.iter_mut().zip(new).for_each(|(seen, new)| *seen += new / total);
                    }
                    inv_std.extend(variance.iter().map(|v| 1.0 / (v + self.eps).sqrt()));
                    means.extend(mean);
                }
                batch.observe((stream, &self.spec), count, &seen[0], &seen[1]);
            }
            Moments { mean: means, inv_std }
        });
        Ok(moments.collect())
    }

    fn running_moments(&self, running: &crate::store::Running) -> Moments {
        let (mean, variance) = running.split(&self.spec);
        let inv_std = variance.iter().map(|v| 1.0 / (v + self.eps).sqrt()).collect();
        Moments { mean: mean.to_vec(), inv_std }
    }

    /// One of the two sums of every channel, added over the groups and views: gradients of β and γ.
    fn over_groups(&self, sums: &Sums, which: usize) -> Vec<f64> {
        let channels = self.spec.channels;
        let of_channel = |c: usize| sums.iter().skip(which * channels + c).step_by(2 * channels);
        (0..channels).map(|c| of_channel(c).sum()).collect()
    }
}

/// Per channel, from Σx and Σx² over `count` values.
fn mean_and_variance(sums: &[f64], count: f64) -> (Vec<f64>, Vec<f64>) {
    let (sum, square) = sums.split_at(sums.len() / 2);
    let mean: Vec<f64> = sum.iter().map(|s| s / count).collect();
    let variance = square.iter().zip(&mean).map(|(s, m)| not_negative(s / count - m * m));
    let variance = variance.collect();
    (mean, variance)
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
