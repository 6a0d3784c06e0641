//! Gradients of batch norm and of the ReLU behind it.

use tch::Tensor;

use super::rows::{as_sums, for_each_stretch, sum_blocks, tiled, total};
use crate::kernels::number::{Number, Wide};
use crate::kernels::{Moments, Sums, channels, like};
use crate::tensor::{host, host_mut};

pub(in crate::kernels) fn gradient_sums<T: Number>(
    g: &mut Tensor,
    y: Option<&Tensor>,
    x: &Tensor,
    moments: &Moments,
) -> Sums {
    let (x_data, y_data, width) = (host::<T>(x), y.map(host::<T>), channels(x));
    let (mean, inv_std) = (host::<f64>(&moments.mean), host::<f64>(&moments.inv_std));
    let groups = mean.len() / width;
    let means: Vec<Vec<T::Wide>> =
        mean.chunks(width).map(|mean| tiled(mean.iter().copied())).collect();
    let parts = for_each_stretch(host_mut::<T>(g), groups, width, |first, group, g| {
        let x = &x_data[first..][..g.len()];
        if let Some(y) = y_data {
            mask(g, &y[first..][..g.len()]);
        }
        stretch_sums(g, x, &means[group], width)
    });
    let sums = parts.into_iter().zip(inv_std.chunks(width)).flat_map(|(parts, inv_std)| {
        let mut sums = total(parts);
        sums[width..].iter_mut().zip(inv_std).for_each(|(sum, inv_std)| *sum *= inv_std);
        sums
    });
    as_sums(&sums.collect::<Vec<f64>>(), width)
}

/// 0 where the ReLU's output `y` is 0.
#[inline(always)]
fn mask<T: Number>(g: &mut [T], y: &[T]) {
    for (g, y) in g.iter_mut().zip(y) {
        *g = if y.widen() > T::Wide::ZERO { *g } else { T::narrow(T::Wide::ZERO) };
    }
}

/// Σg and Σg·(x − mean).
#[inline(always)]
fn stretch_sums<T: Number>(g: &[T], x: &[T], mean: &[T::Wide], width: usize) -> Vec<f64> {
    sum_blocks::<T::Wide>(g.len(), width, |range, first, second| {
        for (g, x) in g[range.clone()].chunks(mean.len()).zip(x[range].chunks(mean.len())) {
            let sums = first.iter_mut().zip(&mut *second);
            for ((((a, b), g), x), &mean) in sums.zip(g).zip(x).zip(mean) {
                *a = *a + g.widen();
                *b = *b + g.widen() * (x.widen() - mean);
            }
        }
    })
}

pub(in crate::kernels) fn input_gradient<T: Number>(
    g: &Tensor,
    x: &Tensor,
    moments: &Moments,
    gamma: &Tensor,
    (sums, count): (&Sums, f64),
) -> Tensor {
    let (gamma, sums) = (host::<f64>(gamma), host::<f64>(sums));
    let (mean, inv_std) = (host::<f64>(&moments.mean), host::<f64>(&moments.inv_std));
    let width = gamma.len();
    let of_groups = mean.chunks(width).zip(inv_std.chunks(width)).zip(sums.chunks(2 * width));
    let lines: Vec<Line<T::Wide>> = of_groups
        .map(|((mean, inv_std), sums)| Line::new((mean, inv_std), gamma, sums, count))
        .collect();
    let groups = lines.len();
    let (g, x_data) = (host::<T>(g), host::<T>(x));
    let mut dx = like(x);
    for_each_stretch(host_mut::<T>(&mut dx), groups, width, |first, group, dx| {
        lines[group].apply(&g[first..][..dx.len()], &x_data[first..][..dx.len()], dx);
    });
    dx
}

/// dx = a·g + b·(x − mean) + d, with everything that does not depend on the row in a, b and d; tiled.
struct Line<W> {
    a: Vec<W>,
    b: Vec<W>,
    mean: Vec<W>,
    d: Vec<W>,
}

impl<W: Wide> Line<W> {
    fn new((mean, inv_std): (&[f64], &[f64]), gamma: &[f64], sums: &[f64], count: f64) -> Self {
        let width = gamma.len();
        let (sum_g, sum_gx) = sums.split_at(width);
        let a = |c: usize| gamma[c] * inv_std[c];
        Self {
            a: tiled((0..width).map(a)),
            b: tiled((0..width).map(|c| -a(c) * inv_std[c] * sum_gx[c] / count)),
            mean: tiled(mean.iter().copied()),
            d: tiled((0..width).map(|c| -a(c) * sum_g[c] / count)),
        }
    }

    #[inline(always)]
    fn apply<T: Number<Wide = W>>(&self, g: &[T], x: &[T], dx: &mut [T]) {
        let width = self.a.len();
        for ((dx, g), x) in dx.chunks_mut(width).zip(g.chunks(width)).zip(x.chunks(width)) {
            let constants = self.a.iter().zip(&self.b).zip(&self.mean).zip(&self.d);
            for (((dx, g), x), (((&a, &b), &mean), &d)) in
                dx.iter_mut().zip(g).zip(x).zip(constants)
            {
                *dx = T::narrow(a * g.widen() + b * (x.widen() - mean) + d);
            }
        }
    }
}
