//! LARS and SGD with momentum, over the flat buffers.

use crate::kernels::{self, Move};
use crate::layout::{ParamSpec, Role};
use crate::store::Store;

/// Update rule and its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizer {
    /// Scale each tensor's gradient by trust·‖θ‖/‖g‖: LARS; `None`: SGD.
    pub trust: Option<f64>,
    /// μ.
    pub momentum: f64,
    /// Step along g + μ·m instead of m.
    pub nesterov: bool,
    /// Added as wd·θ to the gradient.
    pub weight_decay: f64,
}

impl Optimizer {
    /// One update at learning rate η.
    ///
    /// ```text
    /// g ← g + wd·θ                    not for biases and batch norm
    /// g ← g·trust·‖θ‖/‖g‖             not for biases and batch norm, and only if both norms are positive
    /// m ← μ·m + g
    /// θ ← θ − η·m                     Nesterov: θ ← θ − η·(g + μ·m)
    /// ```
    ///
    /// η stays outside of the momentum buffer, so a change of η acts at once.
    ///
    /// Source: You et al. 2017, arXiv:1708.03888, as in the authors' code of BYOL (`optimizers.py`);
    /// Nesterov as PyTorch's `SGD(nesterov=True)`, Sutskever et al. 2013.
    pub(crate) fn apply(
        &self,
        learning_rate: f64,
        params: &[ParamSpec],
        weights: &mut Store,
        gradients: &Store,
        momentum: &mut Store,
    ) {
        for spec in params {
            let [mut theta, gradient, mut momentum] = [&*weights, gradients, &*momentum]
                .map(|store| store.stretch(spec.offset, spec.len()));
            let Self { momentum: mu, nesterov, .. } = *self;
            let (decay, trust) =
                if is_adapted(spec.role) { (self.weight_decay, self.trust) } else { (0.0, None) };
            let how = Move { decay, trust, momentum: mu, nesterov, learning_rate };
            kernels::update(&mut theta, &mut momentum, &gradient, how);
        }
    }
}

/// Weight decay and LARS leave tensors of one dimension alone.
fn is_adapted(role: Role) -> bool {
    match role {
        Role::Convolution | Role::Linear => true,
        Role::Bias | Role::Gamma(_) | Role::Beta => false,
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::layout::Layout;

    /// Two parameters, a 2×2 weight and a bias of 2, with given values.
    fn setup(weight: [f64; 4], bias: [f64; 2]) -> (Layout, Store) {
        let mut layout = Layout::new(1e-5);
        layout.param("weight".into(), &[2, 2], Role::Linear);
        layout.param("bias".into(), &[2], Role::Bias);
        let mut store = Store::zeros(layout.params(), layout.len(), Kind::Double, Device::Cpu);
        store.fill(&layout.params()[0], &weight);
        store.fill(&layout.params()[1], &bias);
        (layout, store)
    }

    fn values(store: &Store, spec: &ParamSpec) -> Vec<f64> {
        Vec::try_from(store.stretch(spec.offset, spec.len())).unwrap()
    }

    #[test]
    fn lars_decays_and_adapts_weights_but_not_biases() {
        let (layout, mut weights) = setup([3.0, 0.0, 0.0, 4.0], [1.0, 2.0]);
        let (_, gradients) = setup([0.0, 1.0, 0.0, 0.0], [0.5, 0.5]);
        let (_, mut momentum) = setup([0.0; 4], [0.0; 2]);
        let lars =
            Optimizer { trust: Some(1e-3), momentum: 0.9, nesterov: false, weight_decay: 0.1 };
        lars.apply(2.0, layout.params(), &mut weights, &gradients, &mut momentum);
        // g = [0.3, 1, 0, 0.4], ‖g‖ = √1.25, ‖θ‖ = 5
        let scale = 2.0 * 1e-3 * 5.0 / 1.25_f64.sqrt();
        let want = [3.0 - 0.3 * scale, -scale, 0.0, 4.0 - 0.4 * scale];
        for (got, want) in values(&weights, &layout.params()[0]).iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got} against {want}");
        }
        assert_eq!(values(&weights, &layout.params()[1]), [0.0, 1.0]);
    }

    #[test]
    fn lars_still_adapts_without_weight_decay() {
        let (layout, mut weights) = setup([3.0, 0.0, 0.0, 4.0], [0.0; 2]);
        let (_, gradients) = setup([0.0, 10.0, 0.0, 0.0], [0.0; 2]);
        let (_, mut momentum) = setup([0.0; 4], [0.0; 2]);
        let lars =
            Optimizer { trust: Some(1e-3), momentum: 0.9, nesterov: false, weight_decay: 0.0 };
        lars.apply(1.0, layout.params(), &mut weights, &gradients, &mut momentum);
        let got = values(&weights, &layout.params()[0]);
        assert!((got[1] + 5e-3).abs() < 1e-15, "{got:?}");
    }

    #[test]
    fn a_change_of_the_learning_rate_acts_on_the_whole_momentum() {
        let (layout, mut weights) = setup([0.0; 4], [0.0; 2]);
        let (_, mut momentum) = setup([0.0; 4], [0.0; 2]);
        let sgd = Optimizer { trust: None, momentum: 0.5, nesterov: false, weight_decay: 0.0 };
        for learning_rate in [1.0, 0.1] {
            let (_, gradients) = setup([0.0; 4], [1.0, 0.0]);
            sgd.apply(learning_rate, layout.params(), &mut weights, &gradients, &mut momentum);
        }
        // m = 1, then 0.5·1 + 1 = 1.5
        assert_eq!(values(&weights, &layout.params()[1]), [-1.0 - 0.15, 0.0]);
    }

    #[test]
    fn nesterov_steps_along_the_momentum_that_is_to_come() {
        let (layout, mut weights) = setup([2.0, 0.0, 0.0, 0.0], [1.0, 0.0]);
        let (_, mut momentum) = setup([0.0; 4], [0.0; 2]);
        let sgd = Optimizer { trust: None, momentum: 0.5, nesterov: true, weight_decay: 0.1 };
        for learning_rate in [1.0, 0.1] {
            let (_, gradients) = setup([1.0, 0.0, 0.0, 0.0], [1.0, 0.0]);
            sgd.apply(learning_rate, layout.params(), &mut weights, &gradients, &mut momentum);
        }
        // Weight: g = 1.2, m = 1.2, θ = 2 − (1.2 + 0.6) = 0.2; g = 1.02, m = 1.62, θ = 0.2 − 0.1·1.83.
        // Bias: no decay; θ = 1 − 1.5 = −0.5; m = 1.5, θ = −0.5 − 0.1·(1 + 0.75).
        for (spec, want) in layout.params().iter().zip([0.2 - 0.183, -0.5 - 0.175]) {
            let got = values(&weights, spec)[0];
            assert!((got - want).abs() < 1e-15, "{}: {got} against {want}", spec.name);
        }
    }
}
