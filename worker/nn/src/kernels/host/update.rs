//! The optimizer's pass over weights, momentum and gradient.

use std::ops::Range;

use tch::Tensor;

use super::rows::{STRETCH, Terms, sum_rows};
use crate::kernels::Move;
use crate::kernels::number::{Number, Wide};
use crate::tensor::{host, host_mut, parallel_chunks};

/// ‖θ‖ and ‖g + decay·θ‖.
fn norms<T: Number>(theta: &[T], gradient: &[T], decay: f64) -> [f64; 2] {
    let squares = Squares { theta, gradient, decay: T::Wide::from_f64(decay) };
    let sums = sum_rows(theta.len(), 1, &squares);
    [sums[0].sqrt(), sums[1].sqrt()]
}

/// θ² and (g + decay·θ)².
struct Squares<'a, T: Number> {
    theta: &'a [T],
    gradient: &'a [T],
    decay: T::Wide,
}

impl<T: Number> Terms for Squares<'_, T> {
    type Wide = T::Wide;
    #[inline(always)]
    fn add(&self, elements: Range<usize>, first: &mut [T::Wide], second: &mut [T::Wide]) {
        let rows = self.theta[elements.clone()].chunks(first.len());
        for (theta, gradient) in rows.zip(self.gradient[elements].chunks(first.len())) {
            let sums = first.iter_mut().zip(&mut *second);
            for (((a, b), theta), g) in sums.zip(theta).zip(gradient) {
                let g = g.widen() + self.decay * theta.widen();
                *a = *a + theta.widen() * theta.widen();
                *b = *b + g * g;
            }
        }
    }
}

pub(in crate::kernels) fn update<T: Number>(
    theta: &mut Tensor,
    momentum: &mut Tensor,
    gradient: &Tensor,
    how: Move,
) {
    let gradient = host::<T>(gradient);
    let scale = how.trust.map_or(1.0, |trust| {
        let [theta, gradient] = norms(host::<T>(theta), gradient, how.decay);
        if theta > 0.0 && gradient > 0.0 { trust * theta / gradient } else { 1.0 }
    });
    let moved =
        host_mut::<T>(theta).chunks_mut(STRETCH).zip(host_mut::<T>(momentum).chunks_mut(STRETCH));
    let mut stretches: Vec<_> = moved.zip(gradient.chunks(STRETCH)).collect();
    let [decay, scale, mu, rate] =
        [how.decay, scale, how.momentum, how.learning_rate].map(T::Wide::from_f64);
    parallel_chunks(&mut stretches, 1, |_, stretch| {
        let ((theta, momentum), gradient) = &mut stretch[0];
        pulp::Arch::new().dispatch(|| {
            for ((theta, m), g) in theta.iter_mut().zip(momentum.iter_mut()).zip(*gradient) {
                let g = (g.widen() + decay * theta.widen()) * scale;
                let new = mu * m.widen() + g;
                let along = if how.nesterov { g + mu * new } else { new };
                *m = T::narrow(new);
                *theta = T::narrow(theta.widen() - rate * along);
            }
        });
    });
}
