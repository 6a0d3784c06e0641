//! Sums for the statistics, normalization, and what follows it.

use std::ops::Range;

use tch::Tensor;

use super::rows::{Terms, Walk, as_sums, for_each_stretch, sum_rows, tiled};
use crate::kernels::number::{Number, Wide};
use crate::kernels::{After, Moments, Sums, channels, like};
use crate::tensor::{host, host_mut};

/// Sums of squares are taken around the first row and moved afterwards, so that a mean far from zero
/// costs no digits.
pub(in crate::kernels) fn sums<T: Number>(x: &Tensor, groups: usize) -> Sums {
    let (data, width) = (host::<T>(x), channels(x));
    let groups = data.chunks(data.len() / groups);
    let sums: Vec<f64> = groups.flat_map(|rows| group_sums(rows, width)).collect();
    as_sums(&sums, width)
}

/// Σx and Σx² of one group.
fn group_sums<T: Number>(rows: &[T], width: usize) -> Vec<f64> {
    let origin: Vec<T::Wide> = tiled(rows[..width].iter().map(|x| x.widen().to_f64()));
    let around = sum_rows(rows.len(), width, &Around { rows, origin: &origin });
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 rows")]
    let count = (rows.len() / width) as f64;
    let (sum, square) = around.split_at(width);
    let moved = |c: usize| origin[c].to_f64();
    let first = (0..width).map(|c| sum[c] + count * moved(c));
    let second = (0..width).map(|c| square[c] + moved(c) * (2.0 * sum[c] + count * moved(c)));
    first.chain(second).collect()
}

/// x − o and (x − o)².
struct Around<'a, T: Number> {
    rows: &'a [T],
    origin: &'a [T::Wide],
}

impl<T: Number> Terms for Around<'_, T> {
    type Wide = T::Wide;
    #[inline(always)]
    fn add(&self, elements: Range<usize>, first: &mut [T::Wide], second: &mut [T::Wide]) {
        for row in self.rows[elements].chunks(self.origin.len()) {
            let sums = first.iter_mut().zip(&mut *second);
            for (((a, b), x), &origin) in sums.zip(row).zip(self.origin) {
                let d = x.widen() - origin;
                *a = *a + d;
                *b = *b + d * d;
            }
        }
    }
}

pub(in crate::kernels) fn normalize<T: Number>(
    x: &Tensor,
    moments: &Moments,
    affine: (&Tensor, &Tensor),
    after: After<'_>,
) -> Tensor {
    let (relu_follows, residual) = match after {
        After::Nothing => (false, None),
        After::Relu => (true, None),
        After::AddRelu(residual) => (true, Some(host::<T>(residual))),
    };
    let mut y = like(x);
    let lines = lines(moments, affine);
    let kernel = Normalize { x: host::<T>(x), lines, residual, relu_follows };
    for_each_stretch(host_mut::<T>(&mut y), kernel.lines.len(), channels(x), &kernel);
    y
}

/// Normalization, and what follows it.
struct Normalize<'a, T: Number> {
    x: &'a [T],
    /// Of each group.
    lines: Vec<Line<T::Wide>>,
    residual: Option<&'a [T]>,
    relu_follows: bool,
}

impl<T: Number> Walk<T> for Normalize<'_, T> {
    type Left = ();
    #[inline(always)]
    fn walk(&self, first: usize, group: usize, y: &mut [T]) {
        let (line, x) = (&self.lines[group], &self.x[first..][..y.len()]);
        match self.residual {
            Some(residual) => line.apply_and_add(y, x, &residual[first..][..y.len()]),
            None if self.relu_follows => line.apply(y, x, relu),
            None => line.apply(y, x, |z| z),
        }
    }
}

/// Batch norm of every channel as one multiplication and one addition, per group.
fn lines<W: Wide>(moments: &Moments, (gamma, beta): (&Tensor, &Tensor)) -> Vec<Line<W>> {
    let (gamma, beta) = (host::<f64>(gamma), host::<f64>(beta));
    let width = gamma.len();
    let inv_std = host::<f64>(&moments.inv_std).chunks(width);
    let means = host::<f64>(&moments.mean).chunks(width).zip(inv_std);
    let of_group = |(mean, inv_std): (&[f64], &[f64])| {
        let scale = |c: usize| gamma[c] * inv_std[c];
        let shift = |c: usize| beta[c] - mean[c] * scale(c);
        Line { scale: tiled((0..width).map(scale)), shift: tiled((0..width).map(shift)) }
    };
    means.map(of_group).collect()
}

/// Scale and shift of every channel, tiled.
struct Line<W> {
    scale: Vec<W>,
    shift: Vec<W>,
}

impl<W: Wide> Line<W> {
    /// `y = then(x·scale + shift)`.
    #[inline(always)]
    fn apply<T: Number<Wide = W>>(&self, y: &mut [T], x: &[T], then: impl Fn(W) -> W) {
        let width = self.scale.len();
        for (y, x) in y.chunks_mut(width).zip(x.chunks(width)) {
            for (((y, x), &scale), &shift) in y.iter_mut().zip(x).zip(&self.scale).zip(&self.shift)
            {
                *y = T::narrow(then(x.widen() * scale + shift));
            }
        }
    }

    /// `y = relu(x·scale + shift + residual)`.
    #[inline(always)]
    fn apply_and_add<T: Number<Wide = W>>(&self, y: &mut [T], x: &[T], residual: &[T]) {
        let width = self.scale.len();
        for ((y, x), residual) in
            y.chunks_mut(width).zip(x.chunks(width)).zip(residual.chunks(width))
        {
            let line = self.scale.iter().zip(&self.shift);
            for (((y, x), r), (&scale, &shift)) in y.iter_mut().zip(x).zip(residual).zip(line) {
                *y = T::narrow(relu(x.widen() * scale + shift + r.widen()));
            }
        }
    }
}

/// max(0, x), except that it lets NaN pass: a step that went wrong must be seen.
#[inline(always)]
fn relu<W: Wide>(x: W) -> W {
    if x < W::ZERO { W::ZERO } else { x }
}
