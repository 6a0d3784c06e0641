//! Host loops over rows of channels, in parallel over fixed stretches of rows.
//!
//! The stretches depend only on the shape, and their partial sums are added in order, so results do not
//! depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;
use tch::Tensor;

use super::{After, Moments, Number, Sums, channels, like};
use crate::tensor::{host, host_mut};

/// Elements of one stretch: small enough to stay in the second-level cache, large enough to be worth a task.
const STRETCH: usize = 1 << 15;

/// Tiled rows that are summed in the element type before the sum goes on in f64.
const BLOCK: usize = 16;

/// Elements of a tiled row, at least, when rows are narrower.
const TILED: usize = 128;

pub(super) fn sums<T: Number>(x: &Tensor, groups: usize) -> Sums {
    let (data, width) = (host::<T>(x), channels(x));
    let group = data.len() / groups;
    data.chunks(group).flat_map(|rows| group_sums(rows, width)).collect()
}

/// Σx and Σx² of one group. Sums of squares are taken around the first row and moved afterwards, so that
/// a mean far from zero costs no digits.
pub(super) fn group_sums<T: Number>(rows: &[T], width: usize) -> Vec<f64> {
    let origin: Vec<T> = rows[..width].repeat(tiles(width));
    let around = reduce_rows::<T>(rows.len(), width, |stretch, first, second| {
        for row in rows[stretch].chunks(origin.len()) {
            for (((a, b), &x), &o) in first.iter_mut().zip(&mut *second).zip(row).zip(&origin) {
                let d = x - o;
                *a = *a + d;
                *b = *b + d * d;
            }
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 rows")]
    let count = (rows.len() / width) as f64;
    let (sum, square) = around.split_at(width);
    let moved = |c: usize| origin[c].to_f64();
    let first = (0..width).map(|c| sum[c] + count * moved(c));
    let second = (0..width).map(|c| square[c] + moved(c) * (2.0 * sum[c] + count * moved(c)));
    first.chain(second).collect()
}

/// Two sums per channel over all rows: `add` takes a block of elements and adds it to two accumulators
/// in the element type, as wide as a tiled row; blocks are then added in f64.
fn reduce_rows<T: Number>(
    len: usize,
    width: usize,
    add: impl Fn(Range<usize>, &mut [T], &mut [T]) + Sync,
) -> Vec<f64> {
    let (stretch, tiled) = (stretch_len(width), tiles(width) * width);
    let partial: Vec<Vec<f64>> = (0..len.div_ceil(stretch))
        .into_par_iter()
        .map(|index| {
            let (start, end) = (index * stretch, len.min((index + 1) * stretch));
            let mut total = vec![0.0; 2 * width];
            let mut block = vec![T::ZERO; 2 * tiled];
            for from in (start..end).step_by(BLOCK * tiled) {
                block.fill(T::ZERO);
                let (first, second) = block.split_at_mut(tiled);
                add(from..end.min(from + BLOCK * tiled), first, second);
                for (sums, tiles) in total.chunks_mut(width).zip(block.chunks(tiled)) {
                    for tile in tiles.chunks(width) {
                        sums.iter_mut().zip(tile).for_each(|(sum, x)| *sum += x.to_f64());
                    }
                }
            }
            total
        })
        .collect();
    let mut total = vec![0.0; 2 * width];
    for part in partial {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

/// Rows that are walked as one: narrow rows make inner loops too short to be vectorized well.
fn tiles(width: usize) -> usize {
    (TILED / width).max(1)
}

/// Per-channel values as often as [`tiles`] says, one after the other.
fn tiled<T: Number>(values: impl Iterator<Item = f64>) -> Vec<T> {
    let once: Vec<T> = values.map(T::from_f64).collect();
    once.repeat(tiles(once.len()))
}

/// Whole blocks of tiled rows, about [`STRETCH`] elements.
fn stretch_len(width: usize) -> usize {
    let block = BLOCK * tiles(width) * width;
    (STRETCH / block).max(1) * block
}

pub(super) fn normalize<T: Number>(
    x: &Tensor,
    moments: &Moments,
    (gamma, beta): (&Tensor, &Tensor),
    after: After<'_>,
) -> Tensor {
    let affine = Affine::new(moments, host::<T>(gamma), host::<T>(beta));
    let data = host::<T>(x);
    let residual = match after {
        After::AddRelu(residual) => Some(host::<T>(residual)),
        After::Nothing | After::Relu => None,
    };
    let activate = !matches!(after, After::Nothing);
    let mut y = like(x);
    for_each_stretch(host_mut::<T>(&mut y), affine.groups.len(), affine.width, |at, group, y| {
        let (scale, shift) = &affine.groups[group];
        let x = &data[at..at + y.len()];
        if activate && residual.is_none() {
            map_rows(y, x, scale, shift, relu);
        } else {
            map_rows(y, x, scale, shift, |z| z);
        }
        if let Some(residual) = residual {
            for (y, &r) in y.iter_mut().zip(&residual[at..]) {
                *y = relu(*y + r);
            }
        }
    });
    y
}

/// Scale and shift of every channel, per group and tiled: batch norm as one multiplication and one
/// addition.
struct Affine<T> {
    width: usize,
    groups: Vec<(Vec<T>, Vec<T>)>,
}

impl<T: Number> Affine<T> {
    fn new(moments: &Moments, gamma: &[T], beta: &[T]) -> Self {
        let width = gamma.len();
        let means = moments.mean.chunks(width).zip(moments.inv_std.chunks(width));
        let groups = means.map(|(mean, inv_std)| {
            let scale = |c: usize| gamma[c].to_f64() * inv_std[c];
            let shift = |c: usize| beta[c].to_f64() - mean[c] * scale(c);
            (tiled((0..width).map(scale)), tiled((0..width).map(shift)))
        });
        Self { width, groups: groups.collect() }
    }
}

/// `body(first element, group, elements)` for every stretch of `out`, in parallel.
fn for_each_stretch<T: Number>(
    out: &mut [T],
    groups: usize,
    width: usize,
    body: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    let (group_len, stretch) = (out.len() / groups, stretch_len(width));
    out.par_chunks_mut(group_len).enumerate().for_each(|(group, rows)| {
        rows.par_chunks_mut(stretch).enumerate().for_each(|(index, rows)| {
            body(group * group_len + index * stretch, group, rows);
        });
    });
}

/// `out = then(x·scale + shift)`, tiled row by tiled row.
fn map_rows<T: Number>(out: &mut [T], x: &[T], scale: &[T], shift: &[T], then: impl Fn(T) -> T) {
    let width = scale.len();
    for (out, x) in out.chunks_mut(width).zip(x.chunks(width)) {
        for (((out, &x), &scale), &shift) in out.iter_mut().zip(x).zip(scale).zip(shift) {
            *out = then(x * scale + shift);
        }
    }
}

/// max(0, x), except that it lets NaN pass: a step that went wrong must be seen.
fn relu<T: Number>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

pub(super) fn mask<T: Number>(dy: &mut Tensor, y: &Tensor) {
    let (width, y) = (channels(y), host::<T>(y));
    for_each_stretch(host_mut::<T>(dy), 1, width, |at, _, dy| {
        for (dy, &y) in dy.iter_mut().zip(&y[at..]) {
            *dy = if y > T::ZERO { *dy } else { T::ZERO };
        }
    });
}

pub(super) fn gradient_sums<T: Number>(g: &Tensor, x: &Tensor, moments: &Moments) -> Sums {
    let (g, x, width) = (host::<T>(g), host::<T>(x), channels(x));
    let groups = moments.mean.len() / width;
    let group_len = x.len() / groups;
    let mut all = Vec::with_capacity(2 * moments.mean.len());
    for group in 0..groups {
        let (g, x) = (&g[group * group_len..][..group_len], &x[group * group_len..][..group_len]);
        let mean: Vec<T> = tiled(moments.mean[group * width..][..width].iter().copied());
        let mut sums = reduce_rows::<T>(group_len, width, |rows, first, second| {
            let rows = g[rows.clone()].chunks(mean.len()).zip(x[rows].chunks(mean.len()));
            for (g, x) in rows {
                for ((((a, b), &g), &x), &mean) in
                    first.iter_mut().zip(&mut *second).zip(g).zip(x).zip(&mean)
                {
                    *a = *a + g;
                    *b = *b + g * (x - mean);
                }
            }
        });
        for (sum, inv_std) in sums[width..].iter_mut().zip(&moments.inv_std[group * width..]) {
            *sum *= inv_std;
        }
        all.extend(sums);
    }
    all
}

pub(super) fn input_gradient<T: Number>(
    g: &Tensor,
    x: &Tensor,
    moments: &Moments,
    gamma: &Tensor,
    (sums, count): (&Sums, f64),
) -> Tensor {
    let gamma = host::<T>(gamma);
    let width = gamma.len();
    let groups = moments.mean.len() / width;
    let lines: Vec<Line<T>> =
        (0..groups).map(|group| Line::new(moments, gamma, sums, (group, count))).collect();
    let (g, x_data) = (host::<T>(g), host::<T>(x));
    let mut dx = like(x);
    for_each_stretch(host_mut::<T>(&mut dx), groups, width, |at, group, dx| {
        lines[group].apply(&g[at..at + dx.len()], &x_data[at..at + dx.len()], dx);
    });
    dx
}

/// dx = a·g + b·(x − mean) + d, with everything that does not depend on the row in a, b and d; tiled.
struct Line<T> {
    a: Vec<T>,
    b: Vec<T>,
    mean: Vec<T>,
    d: Vec<T>,
}

impl<T: Number> Line<T> {
    fn new(moments: &Moments, gamma: &[T], sums: &Sums, (group, count): (usize, f64)) -> Self {
        let width = gamma.len();
        let (sum_g, sum_gx) = sums[2 * group * width..][..2 * width].split_at(width);
        let inv_std = &moments.inv_std[group * width..][..width];
        let a = |c: usize| gamma[c].to_f64() * inv_std[c];
        Self {
            a: tiled((0..width).map(a)),
            b: tiled((0..width).map(|c| -a(c) * inv_std[c] * sum_gx[c] / count)),
            mean: tiled(moments.mean[group * width..][..width].iter().copied()),
            d: tiled((0..width).map(|c| -a(c) * sum_g[c] / count)),
        }
    }

    fn apply(&self, g: &[T], x: &[T], dx: &mut [T]) {
        let width = self.a.len();
        let rows = dx.chunks_mut(width).zip(g.chunks(width)).zip(x.chunks(width));
        for ((dx, g), x) in rows {
            let constants = self.a.iter().zip(&self.b).zip(&self.mean).zip(&self.d);
            for (((dx, &g), &x), (((&a, &b), &mean), &d)) in
                dx.iter_mut().zip(g).zip(x).zip(constants)
            {
                *dx = a * g + b * (x - mean) + d;
            }
        }
    }
}
