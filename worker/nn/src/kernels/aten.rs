//! The same operations in ATen's words, for devices whose memory the host can't walk.
//!
//! Statistics, normalization and the sums of the gradient are ATen's own batch-norm kernels, one call per group (they read
//! bf16 and give f32); what is left is written in elementwise operations. Every call here exists for CPU tensors too, which
//! is how it is tested. Not used: the kernels of PyTorch's `SyncBatchNorm` (`batch_norm_elemt` and its kin), which ATen has
//! for GPUs only.

use tch::{Kind, Tensor};

use super::{After, Moments, Move, Sums, like};
use crate::store::signed;
use crate::tensor::batch_norm_gradient_sums;

/// From mean and variance of each group: Σx = n·mean, Σx² = n·(variance + mean²).
pub(super) fn sums(x: &Tensor, groups: usize) -> Sums {
    let of_group = |x: Tensor| {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 rows")]
        let count = (signed(x.numel()) / x.size()[1]) as f64;
        let (mean, variance) = x.batch_norm_update_stats(None::<&Tensor>, None, 0.0);
        let (mean, variance) = (mean.to_kind(Kind::Double), variance.to_kind(Kind::Double));
        Tensor::stack(&[&mean * count, (variance + &mean * &mean) * count], 0)
    };
    let sums: Vec<Tensor> = parts(x, signed(groups)).map(of_group).collect();
    Tensor::stack(&sums, 0)
}

pub(super) fn normalize(
    x: &Tensor,
    moments: &Moments,
    (gamma, beta): (&Tensor, &Tensor),
    after: After<'_>,
) -> Tensor {
    let kind = statistics_kind(x);
    let [gamma, beta, mean] = [gamma, beta, &moments.mean].map(|x| x.to_kind(kind));
    // The kernel takes a variance and an ε: this one, and none.
    let variance = (&moments.inv_std * &moments.inv_std).reciprocal().to_kind(kind);
    let groups = mean.size()[0];
    let mut y = like(x);
    for (group, (x, out)) in (0..).zip(parts(x, groups).zip(parts(&y, groups))) {
        let saved = [(); 2].map(|()| Tensor::empty([0], (kind, x.device()))); // not looked at
        let (mean, variance) = (mean.get(group), variance.get(group));
        let _written = x.native_batch_norm_out(
            &out,
            &saved[0],
            &saved[1],
            Some(&gamma),
            Some(&beta),
            Some(&mean),
            Some(&variance),
            false, // normalize with the moments that are handed in
            0.0,
            0.0,
        );
    }
    match after {
        After::Nothing => y,
        After::Relu => y.relu_(),
        After::AddRelu(residual) => {
            y += residual;
            y.relu_()
        }
    }
}

pub(super) fn gradient_sums(
    g: &mut Tensor,
    y: Option<&Tensor>,
    x: &Tensor,
    moments: &Moments,
) -> Sums {
    if let Some(y) = y {
        *g = y.threshold_backward(g, 0.0);
    }
    let kind = statistics_kind(x);
    let [mean, inv_std] = [&moments.mean, &moments.inv_std].map(|x| x.to_kind(kind));
    let groups = mean.size()[0];
    let of_group = |(group, (g, x)): (i64, (Tensor, Tensor))| {
        let [plain, with_x_hat] =
            batch_norm_gradient_sums(&g, &x, [&mean.get(group), &inv_std.get(group)]);
        Tensor::stack(&[plain, with_x_hat], 0).to_kind(Kind::Double)
    };
    let sums: Vec<Tensor> =
        (0..).zip(parts(g, groups).zip(parts(x, groups))).map(of_group).collect();
    Tensor::stack(&sums, 0)
}

/// dx = scale·g + slope·x + shift, as the host has it, with slope·mean in the shift.
pub(super) fn input_gradient(
    g: &Tensor,
    x: &Tensor,
    moments: &Moments,
    gamma: &Tensor,
    (sums, count): (&Sums, f64),
) -> Tensor {
    let Moments { mean, inv_std } = moments;
    let scale = inv_std * gamma;
    let slope = -(&scale * inv_std * sums.select(1, 1)) / count;
    let shift = -(&scale * sums.select(1, 0)) / count - &slope * mean;
    let groups = mean.size()[0];
    let [scale, slope, shift] = [scale, slope, shift]
        .map(|line| line.to_kind(statistics_kind(x)).view([groups, 1, x.size()[1], 1]));
    let mut dx = shift.addcmul(&grouped(g, groups), &scale);
    let dx = dx.addcmul_(&grouped(x, groups), &slope);
    dx.to_kind(x.kind()).reshape(x.size())
}

pub(super) fn update(theta: &mut Tensor, momentum: &mut Tensor, gradient: &Tensor, how: Move) {
    let mut gradient = gradient + &*theta * how.decay;
    if let Some(trust) = how.trust {
        let (of_theta, of_gradient) = (theta.norm(), gradient.norm());
        let both = of_theta.gt(0.0).logical_and(&of_gradient.gt(0.0));
        let scale = &of_theta * trust / &of_gradient;
        gradient *= scale.where_self(&both, &scale.ones_like());
    }
    *momentum *= how.momentum;
    *momentum += &gradient;
    let along =
        if how.nesterov { gradient + &*momentum * how.momentum } else { momentum.shallow_clone() };
    *theta -= along * how.learning_rate;
}

/// What ATen's batch norm has its statistics and weights in.
fn statistics_kind(x: &Tensor) -> Kind {
    if x.kind() == Kind::Double { Kind::Double } else { Kind::Float }
}

/// The groups, which lie one after the other, as tensors that share memory.
fn parts(x: &Tensor, groups: i64) -> impl Iterator<Item = Tensor> {
    let rows = x.size()[0] / groups;
    (0..groups).map(move |group| x.narrow(0, group * rows, rows))
}

/// `[B, C, …]` as `[groups, B / groups, C, H·W]`.
fn grouped(x: &Tensor, groups: i64) -> Tensor {
    let size = x.size();
    x.reshape([groups, size[0] / groups, size[1], size[2..].iter().product()])
}
