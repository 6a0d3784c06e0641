//! The memory-bound half of the engine: batch norm, ReLU and residual addition, forward and backward, and
//! the optimizer's pass.
//!
//! The former see activations as rows of channels: `[rows, C]` in memory, which is what a
//! channels-last `[B, C, H, W]` and a `[B, C]` tensor both are. The batch holds the two views one after
//! the other, and each *group* of rows (a view) has statistics of its own.
//!
//! Two implementations behind one set of names: loops of our own on the host, ATen's kernels elsewhere. Neither
//! waits for the device: what one kernel leaves for the next stays a tensor where it was made. Tests hold them
//! against each other, and run the whole engine on ATen's.

mod aten;
mod host;
mod number;

use half::bf16;
use tch::{Device, Kind, Tensor};

/// Per-channel sums over the rows of each group: `[groups, 2, C]` in f64, where the rows lie.
pub(crate) type Sums = Tensor;

/// Mean and 1/√(variance + ε) of each channel, per group: `[groups, C]` in f64, where the rows lie.
#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) mean: Tensor,
    pub(crate) inv_std: Tensor,
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
        match $x.kind() {
            Kind::Float if on_host($x) => host::$name::<f32>($($arg),*),
            Kind::BFloat16 if on_host($x) => host::$name::<bf16>($($arg),*),
            Kind::Double if on_host($x) => host::$name::<f64>($($arg),*),
            _ => aten::$name($($arg),*),
        }
    }};
}

/// Whether our own loops can walk the memory.
pub(crate) fn on_host(x: &Tensor) -> bool {
    #[cfg(test)]
    if testing::host_plays_a_device() {
        return false;
    }
    x.device() == Device::Cpu
}

/// Σx and Σx² of every channel, per group.
pub(crate) fn sums(x: &Tensor, groups: usize) -> Sums {
    let _span = tracing::trace_span!("batch_norm").entered();
    on_device!(x, sums(x, groups))
}

/// `y = after(γ·(x − mean)·inv_std + β)`; `affine` = (γ, β) in f64.
pub(crate) fn normalize(
    x: &Tensor,
    moments: &Moments,
    affine: (&Tensor, &Tensor),
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
    gamma: &Tensor,
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
    /// Scale the gradient, behind the decay, by trust·‖θ‖/‖g‖ if both norms are positive; `None`: do not.
    pub(crate) trust: Option<f64>,
    /// μ.
    pub(crate) momentum: f64,
    /// Along g + μ·m instead of m.
    pub(crate) nesterov: bool,
    /// η.
    pub(crate) learning_rate: f64,
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
pub(crate) mod testing {
    //! The engine as on a GPU, on a machine without one.

    use std::cell::Cell;

    thread_local! {
        static PLAYS: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn host_plays_a_device() -> bool {
        PLAYS.get()
    }

    /// Runs `body` with ATen's kernels and permanent message buffers on host tensors.
    pub(crate) fn as_on_a_device<R>(body: impl FnOnce() -> R) -> R {
        PLAYS.set(true);
        let result = body();
        PLAYS.set(false);
        result
    }
}

#[cfg(test)]
mod tests;
