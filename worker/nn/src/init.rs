//! Initial weights: drawn from a generator keyed by the run's seed and the parameter's index, so that
//! every rank makes the same ones and adding a parameter changes no other.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::StandardNormal;

use crate::layout::{ParamSpec, Role};

/// Distribution of the initial weights of convolutions and linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Normal, σ = `1/√fan_in`, truncated at 2σ: the authors' code.
    FanIn,
    /// Convolutions normal with σ = `√(2/fan_out)`, linear layers as [`Init::FanIn`]: torchvision's ResNet.
    He,
}

/// Initial weights of the target network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetInit {
    /// Those of the online network.
    Copy,
    /// A draw of its own.
    Independent,
}

/// Index of the target's first parameter: far behind any of the online network's.
pub(crate) const TARGET: usize = 1 << 24;

/// Values of one parameter in memory order.
pub(crate) fn values(spec: &ParamSpec, index: usize, seed: u64, init: Init) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::try_from(index).expect("indices are small"));
    #[expect(clippy::cast_precision_loss, reason = "fans are small")]
    let (fan_in, fan_out) = (spec.fan_in() as f64, spec.fan_out() as f64);
    let mut draw = |std: f64, limit: f64| -> Vec<f64> {
        (0..spec.len()).map(|_| std * truncated(&mut rng, limit)).collect()
    };
    match (spec.role, init) {
        (Role::Convolution, Init::He) => draw((2.0 / fan_out).sqrt(), f64::INFINITY),
        (Role::Convolution | Role::Linear, _) => draw(fan_in.sqrt().recip(), 2.0),
        (Role::Gamma(value), _) => vec![value; spec.len()],
        (Role::Bias | Role::Beta, _) => vec![0.0; spec.len()],
    }
}

/// Standard normal, drawn again until it is within `limit`.
fn truncated(rng: &mut ChaCha8Rng, limit: f64) -> f64 {
    loop {
        let x: f64 = rng.sample(StandardNormal);
        if x.abs() <= limit {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ParamSpec {
        ParamSpec {
            name: "w".into(),
            shape: vec![64, 16, 3, 3],
            role: Role::Convolution,
            offset: 0,
        }
    }

    fn std(values: &[f64]) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a test")]
        let n = values.len() as f64;
        (values.iter().map(|x| x * x).sum::<f64>() / n).sqrt()
    }

    #[test]
    fn the_same_seed_gives_the_same_weights_and_another_index_others() {
        let draw = |index, seed| values(&spec(), index, seed, Init::FanIn);
        assert_eq!(draw(3, 7), draw(3, 7));
        assert_ne!(draw(3, 7), draw(4, 7));
        assert_ne!(draw(3, 7), draw(3, 8));
    }

    #[test]
    fn fan_in_weights_are_truncated_at_two_sigmas() {
        let sigma = 1.0 / 144.0_f64.sqrt();
        let drawn = values(&spec(), 0, 1, Init::FanIn);
        assert!(drawn.iter().all(|x| x.abs() <= 2.0 * sigma));
        // A normal cut at 2σ keeps 0.8796 of its σ.
        assert!((std(&drawn) / (0.8796 * sigma) - 1.0).abs() < 0.03, "{}", std(&drawn));
    }

    #[test]
    fn he_weights_have_torchvisions_sigma() {
        let sigma = (2.0 / (64.0 * 9.0_f64)).sqrt();
        let drawn = values(&spec(), 0, 1, Init::He);
        assert!((std(&drawn) / sigma - 1.0).abs() < 0.03, "{}", std(&drawn));
    }
}
