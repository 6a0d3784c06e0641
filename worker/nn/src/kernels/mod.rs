//! The memory-bound half of the engine: batch norm, ReLU and residual addition, forward and backward, and
//! the optimizer's pass.
//!
//! The former see activations as rows of channels: `[rows, C]` in memory, which is what a
//! channels-last `[B, C, H, W]` and a `[B, C]` tensor both are. The batch holds the two views one after
//! the other, and each *group* of rows (a view) has statistics of its own.
//!
//! Two implementations behind one set of names: loops of our own on the host, ATen's operations elsewhere.
//! Tests hold them against each other.

mod aten;
mod host;
mod number;

use half::bf16;
use tch::{Device, Kind, Tensor};

/// Per-channel sums over the rows of each group, laid out `[group][which][channel]`; two sums per channel.
pub(crate) type Sums = Vec<f64>;

/// Mean and 1/√(variance + ε) of each channel, per group: `[group][channel]`.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f64>,
    pub(crate) inv_std: Vec<f64>,
}

/// What follows the normalization.
#[derive(Debug, Clone, Copy)]
pub(crate) enum After<'a> {
    /// Nothing.
    Nothing,
    /// max(0, ·).
    Relu,
    /// max(0, · + residual).
    AddRelu(&'a Tensor),
}

macro_rules! on_device {
    ($x:expr, $name:ident ( $($arg:expr),* )) => {{
        match ($x.device(), $x.kind()) {
            (Device::Cpu, Kind::Float) => host::$name::<f32>($($arg),*),
            (Device::Cpu, Kind::BFloat16) => host::$name::<bf16>($($arg),*),
            (Device::Cpu, Kind::Double) => host::$name::<f64>($($arg),*),
            _ => aten::$name($($arg),*),
        }
    }};
}

/// Σx and Σx² of every channel, per group.
pub(crate) fn sums(x: &Tensor, groups: usize) -> Sums {
    let _span = tracing::trace_span!("batch_norm").entered();
    on_device!(x, sums(x, groups))
}

/// `y = after(γ·(x − mean)·inv_std + β)`; `affine` = (γ, β).
pub(crate) fn normalize(
    x: &Tensor,
    moments: &Moments,
    affine: (&[f64], &[f64]),
    after: After<'_>,
) -> Tensor {
    let _span = tracing::trace_span!("batch_norm").entered();
    on_device!(x, normalize(x, moments, affine, after))
}

/// Σg and Σg·x̂ of every channel, per group, where `x̂ = (x − mean)·inv_std`. Where a ReLU followed, `y` is
/// what it gave, and `g` is first set to 0 where `y` is 0.
pub(crate) fn gradient_sums(
    g: &mut Tensor,
    y: Option<&Tensor>,
    x: &Tensor,
    moments: &Moments,
) -> Sums {
    let _span = tracing::trace_span!("batch_norm").entered();
    on_device!(x, gradient_sums(g, y, x, moments))
}

/// Gradient of batch norm with respect to its input.
///
/// ```text
/// dx = γ·inv_std·(g − Σg/n − x̂·Σ(g·x̂)/n)
/// ```
///
/// `sums` are [`gradient_sums`] over all ranks, `count` = n the rows of one group over all ranks.
/// Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.
pub(crate) fn input_gradient(
    g: &Tensor,
    x: &Tensor,
    moments: &Moments,
    gamma: &[f64],
    (sums, count): (&Sums, f64),
) -> Tensor {
    let _span = tracing::trace_span!("batch_norm").entered();
    on_device!(x, input_gradient(g, x, moments, gamma, (sums, count)))
}

/// How the optimizer moves one parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    /// Weight decay.
    pub(crate) decay: f64,
    /// Factor on the gradient, behind the decay.
    pub(crate) scale: f64,
    /// μ.
    pub(crate) momentum: f64,
    /// Along g + μ·m instead of m.
    pub(crate) nesterov: bool,
    /// η.
    pub(crate) learning_rate: f64,
}

/// ‖θ‖ and ‖g + decay·θ‖.
pub(crate) fn norms(theta: &Tensor, gradient: &Tensor, decay: f64) -> [f64; 2] {
    on_device!(theta, norms(theta, gradient, decay))
}

/// Moves θ and m, as the formula at [`crate::Optimizer`] says.
pub(crate) fn update(theta: &mut Tensor, momentum: &mut Tensor, gradient: &Tensor, how: Move) {
    on_device!(gradient, update(theta, momentum, gradient, how));
}

/// The tensor with its channels innermost in memory; the same tensor when they are.
pub(crate) fn rows(x: &Tensor) -> Tensor {
    if x.dim() == 4 {
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    } else {
        x.contiguous()
    }
}

/// Number of channels: the second dimension.
pub(crate) fn channels(x: &Tensor) -> usize {
    usize::try_from(x.size()[1]).expect("sizes are positive")
}

/// An uninitialised tensor of the same shape, kind and memory order.
fn like(x: &Tensor) -> Tensor {
    x.empty_like()
}

#[cfg(test)]
mod tests;
