//! Projector and predictor: Linear → batch norm → ReLU → Linear without bias.

use lockstep_collective::CollectiveError;
use tch::Tensor;

use crate::batch_norm::{self, BatchNorm};
use crate::kernels::After;
use crate::layout::{Layout, ParamId, Role};
use crate::pass::{Backward, Forward};
use crate::store::Store;

/// y = x·Wᵀ + b.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
}

impl Linear {
    pub(crate) fn new(
        layout: &mut Layout,
        name: &str,
        [input, output]: [i64; 2],
        bias: bool,
    ) -> Self {
        Self {
            weight: layout.param(format!("{name}.weight"), &[output, input], Role::Linear),
            bias: bias.then(|| layout.param(format!("{name}.bias"), &[output], Role::Bias)),
        }
    }

    pub(crate) fn forward(&self, pass: &Forward<'_>, stream: usize, x: &Tensor) -> Tensor {
        self.apply(pass.networks[stream].weights.working, x)
    }

    /// With the weights of one network.
    pub(crate) fn apply(&self, params: &Store, x: &Tensor) -> Tensor {
        x.linear(params.get(self.weight), self.bias.map(|bias| params.get(bias)))
    }

    /// dW = dyᵀ·x, db = Σ dy, dx = dy·W.
    pub(crate) fn backward(
        &self,
        pass: &mut Backward<'_>,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor, CollectiveError> {
        self.backward_weights(pass, x, dy)?;
        Ok(dy.matmul(pass.weights.working.get(self.weight)))
    }

    /// As [`Linear::backward`], where nothing lies below.
    pub(crate) fn backward_weights(
        &self,
        pass: &mut Backward<'_>,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<(), CollectiveError> {
        if let Some(bias) = self.bias {
            pass.sink.put(bias, &dy.sum_dim_intlist([0_i64].as_slice(), false, dy.kind()))?;
        }
        pass.sink.put(self.weight, &dy.transpose(0, 1).matmul(x))
    }
}

/// Two linear layers with a normalized hidden one.
#[derive(Debug)]
pub(crate) struct Head {
    first: Linear,
    bn: BatchNorm,
    second: Linear,
}

/// What backward needs.
#[derive(Debug)]
pub(crate) struct Saved {
    x: Tensor,
    bn: batch_norm::Saved,
    hidden: Tensor,
}

impl Head {
    /// `name`: `projector` or `predictor`; parts are numbered as in a PyTorch `Sequential`.
    pub(crate) fn new(layout: &mut Layout, name: &str, [input, hidden, output]: [i64; 3]) -> Self {
        Self {
            first: Linear::new(layout, &format!("{name}.0"), [input, hidden], true),
            bn: BatchNorm::new(layout, &format!("{name}.1"), hidden, 1.0),
            second: Linear::new(layout, &format!("{name}.3"), [hidden, output], false),
        }
    }

    pub(crate) fn forward(
        &self,
        pass: &mut Forward<'_>,
        xs: &[Tensor],
    ) -> Result<(Vec<Tensor>, Saved), CollectiveError> {
        let hidden: Vec<Tensor> =
            (0..).zip(xs).map(|(stream, x)| self.first.forward(pass, stream, x)).collect();
        let (hidden, bn) = self.bn.forward(pass, &hidden, |_| After::Relu)?;
        let ys =
            (0..).zip(&hidden).map(|(stream, h)| self.second.forward(pass, stream, h)).collect();
        let saved = Saved { x: xs[0].shallow_clone(), bn, hidden: hidden[0].shallow_clone() };
        Ok((ys, saved))
    }

    pub(crate) fn backward(
        &self,
        pass: &mut Backward<'_>,
        saved: &Saved,
        dy: &Tensor,
    ) -> Result<Tensor, CollectiveError> {
        let d_hidden = self.second.backward(pass, &saved.hidden, dy)?;
        let (d_first, _) = self.bn.backward(pass, &saved.bn, Some(&saved.hidden), d_hidden)?;
        self.first.backward(pass, &saved.x, &d_first)
    }
}
