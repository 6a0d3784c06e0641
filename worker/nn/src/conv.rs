//! Convolution followed by batch norm: the unit that ResNets are made of.

use lockstep_collective::CollectiveError;
use tch::Tensor;

use crate::batch_norm::{self, BatchNorm};
use crate::kernels::{self, After};
use crate::layout::{Layout, ParamId, Role};
use crate::pass::{Backward, Forward};
use crate::window::Window;

/// Bias-free 2-d convolution with batch norm and, by the caller's choice, residual addition and ReLU.
#[derive(Debug)]
pub(crate) struct ConvBn {
    weight: ParamId,
    window: Window,
    bn: BatchNorm,
}

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) input: i64,
    pub(crate) output: i64,
    pub(crate) window: Window,
}

/// What happens after the batch norm.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Activation<'a> {
    Nothing,
    Relu,
    /// Add one tensor per stream, then ReLU.
    AddRelu(&'a [Tensor]),
}

impl ConvBn {
    /// `names`: of the convolution and of the batch norm, without `.weight`.
    pub(crate) fn new(layout: &mut Layout, names: [&str; 2], shape: Shape, gamma: f64) -> Self {
        let Shape { input, output, window } = shape;
        let [conv, bn] = names;
        Self {
            weight: layout.param(
                format!("{conv}.weight"),
                &[output, input, window.kernel, window.kernel],
                Role::Convolution,
            ),
            window,
            bn: BatchNorm::new(layout, bn, output, gamma),
        }
    }

    pub(crate) fn forward(
        &self,
        pass: &mut Forward<'_>,
        xs: &[Tensor],
        activation: Activation<'_>,
    ) -> Result<(Vec<Tensor>, batch_norm::Saved), CollectiveError> {
        let outputs: Vec<Tensor> = xs
            .iter()
            .enumerate()
            .map(|(stream, x)| {
                kernels::rows(&self.window.convolve(x, pass.param(stream, self.weight)))
            })
            .collect();
        self.bn.forward(pass, &outputs, |stream| match activation {
            Activation::Nothing => After::Nothing,
            Activation::Relu => After::Relu,
            Activation::AddRelu(residuals) => After::AddRelu(&residuals[stream]),
        })
    }

    /// The output once more, bit for bit.
    pub(crate) fn output(
        &self,
        pass: &Backward<'_>,
        saved: &batch_norm::Saved,
        after: After<'_>,
    ) -> Tensor {
        self.bn.output(pass, saved, after)
    }

    /// Takes input and output (the latter where a ReLU followed) and the gradient of the output; returns the
    /// gradient of the input if `want_input`, and the gradient behind the ReLU, which is also that of the
    /// residual.
    pub(crate) fn backward(
        &self,
        pass: &mut Backward<'_>,
        saved: &batch_norm::Saved,
        (x, y): (&Tensor, Option<&Tensor>),
        dy: Tensor,
        want_input: bool,
    ) -> Result<(Option<Tensor>, Tensor), CollectiveError> {
        let (d_conv, masked) = self.bn.backward(pass, saved, y, dy)?;
        let weight = pass.weights.working.get(self.weight);
        let (dx, d_weight) = self.window.convolve_backward(&d_conv, x, weight, want_input);
        pass.sink.put(self.weight, &d_weight)?;
        Ok((dx.map(|dx| kernels::rows(&dx)), masked))
    }
}
