//! Gradients of batch norm and of the ReLU behind it.

use std::ops::Range;

use tch::Tensor;

use super::rows::{Terms, Walk, as_sums, for_each_stretch, sum_blocks, tiled, total};
use crate::kernels::number::{Number, Wide};
use crate::kernels::{Moments, Sums, channels, like};
use crate::tensor::{host, host_mut};

pub(in crate::kernels) fn gradient_sums<T: Number>(
    g: &mut Tensor,
    y: Option<&Tensor>,
    x: &Tensor,
    moments: &Moments,
) -> Sums {
    let width = channels(x);
    let (mean, inv_std) = (host::<f64>(&moments.mean), host::<f64>(&moments.inv_std));
    let means: Vec<_> = mean.chunks(width).map(|mean| tiled(mean.iter().copied())).collect();
    let kernel = GradientSums { x: host::<T>(x), y: y.map(host::<T>), means, width };
    let parts = for_each_stretch(host_mut::<T>(g), kernel.means.len(), width, &kernel);
    let sums = parts.into_iter().zip(inv_std.chunks(width)).flat_map(|(parts, inv_std)| {
        let mut sums = total(parts);
        sums[width..].iter_mut().zip(inv_std).for_each(|(sum, inv_std)| *sum *= inv_std);
        sums
    });
    as_sums(&sums.collect::<Vec<f64>>(), width)
}

/// Masks a gradient by the ReLU's output, and sums it.
struct GradientSums<'a, T: Number> {
    x: &'a [T],
    y: Option<&'a [T]>,
    /// Of each group, tiled.
    means: Vec<Vec<T::Wide>>,
    width: usize,
}

impl<T: Number> Walk<T> for GradientSums<'_, T> {
    type Left = Vec<f64>;
    #[inline(always)]
    fn walk(&self, first: usize, group: usize, g: &mut [T]) -> Vec<f64> {
        let here = first..first + g.len();
        if let Some(y) = self.y {
            mask(g, &y[here.clone()]);
        }
        let products = Products { g, x: &self.x[here], mean: &self.means[group] };
        sum_blocks(0..products.g.len(), self.width, &products)
    }
}

/// 0 where the ReLU's output `y` is 0.
#[inline(always)]
fn mask<T: Number>(g: &mut [T], y: &[T]) {
    for (g, y) in g.iter_mut().zip(y) {
        *g = if y.is_positive() { *g } else { T::narrow(T::Wide::ZERO) };
    }
}

/// g and g·(x − mean).
struct Products<'a, T: Number> {
    g: &'a [T],
    x: &'a [T],
    mean: &'a [T::Wide],
}

impl<T: Number> Terms for Products<'_, T> {
    type Wide = T::Wide;
    #[inline(always)]
    fn add(&self, elements: Range<usize>, first: &mut [T::Wide], second: &mut [T::Wide]) {
        let width = self.mean.len();
        let rows = self.g[elements.clone()].chunks(width).zip(self.x[elements].chunks(width));
        for (g, x) in rows {
            let sums = first.iter_mut().zip(&mut *second);
            for ((((a, b), g), x), &mean) in sums.zip(g).zip(x).zip(self.mean) {
                *a = *a + g.widen();
                *b = *b + g.widen() * (x.widen() - mean);
            }
        }
    }
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
    let lines = of_groups
        .map(|((mean, inv_std), sums)| Line::new((mean, inv_std), gamma, sums, count))
        .collect();
    let kernel = InputGradient { g: host::<T>(g), x: host::<T>(x), lines };
    let mut dx = like(x);
    for_each_stretch(host_mut::<T>(&mut dx), kernel.lines.len(), width, &kernel);
    dx
}

/// dx from g and x.
struct InputGradient<'a, T: Number> {
    g: &'a [T],
    x: &'a [T],
    /// Of each group.
    lines: Vec<Line<T::Wide>>,
}

impl<T: Number> Walk<T> for InputGradient<'_, T> {
    type Left = ();
    #[inline(always)]
    fn walk(&self, first: usize, group: usize, dx: &mut [T]) {
        let here = first..first + dx.len();
        self.lines[group].apply(&self.g[here.clone()], &self.x[here], dx);
    }
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
