//! How the host loops walk rows of channels: in parallel over fixed stretches, narrow rows several at once.
//!
//! The stretches depend only on the shape, and their partial sums are added in order, so results do not
//! depend on the number of threads. Each stretch is walked with the widest vectors that the processor has
//! (chosen at run time); the arithmetic is the same element by element, so results do not depend on those
//! either.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};
use tch::Tensor;

use crate::kernels::Sums;
use crate::kernels::number::Wide;
use crate::store::signed;
use crate::tensor::{parallel_chunks, parallel_map};

/// Elements of one stretch: small enough to stay in the second-level cache, large enough to be worth a task.
pub(super) const STRETCH: usize = 1 << 15;

/// Tiled rows that are summed in the element's arithmetic before the sum goes on in f64.
const BLOCK: usize = 16;

/// Elements of a tiled row, at least, when rows are narrower.
const TILED: usize = 128;

/// Rows that are walked as one: narrow rows make inner loops too short to be vectorized well.
fn tiles(width: usize) -> usize {
    (TILED / width).max(1)
}

/// Per-channel values as often as [`tiles`] says, one after the other.
pub(super) fn tiled<W: Wide>(values: impl Iterator<Item = f64>) -> Vec<W> {
    let once: Vec<W> = values.map(W::from_f64).collect();
    once.repeat(tiles(once.len()))
}

/// Whole blocks of tiled rows, about [`STRETCH`] elements.
fn stretch_len(width: usize) -> usize {
    let block = BLOCK * tiles(width) * width;
    (STRETCH / block).max(1) * block
}

/// What is done with a stretch. A method and not a closure, since it must be `#[inline(always)]`: else it is compiled for the
/// narrow vectors that every processor has.
pub(super) trait Walk<T>: Sync {
    /// What is left of a stretch.
    type Left: Send;
    /// `rows` begin at element `first`, and are of `group`.
    fn walk(&self, first: usize, group: usize, rows: &mut [T]) -> Self::Left;
}

/// Walks every stretch of `data`, in parallel; what is left of them, group by group. A group may end inside of a
/// stretch, so each has stretches of its own.
pub(super) fn for_each_stretch<T: Send, K: Walk<T>>(
    data: &mut [T],
    groups: usize,
    width: usize,
    kernel: &K,
) -> Vec<Vec<K::Left>> {
    let (group_len, stretch) = (data.len() / groups, stretch_len(width));
    let of_group = |(group, rows): (usize, &mut [T])| {
        parallel_chunks(rows, stretch, |index, rows| {
            let first = group * group_len + index * stretch;
            Arch::new().dispatch(Stretch { kernel, first, group, rows })
        })
    };
    data.chunks_mut(group_len).enumerate().map(of_group).collect()
}

/// One call of [`Walk::walk`].
struct Stretch<'a, T, K> {
    kernel: &'a K,
    first: usize,
    group: usize,
    rows: &'a mut [T],
}

impl<T, K: Walk<T>> NullaryFnOnce for Stretch<'_, T, K> {
    type Output = K::Left;
    #[inline(always)]
    fn call(self) -> K::Left {
        self.kernel.walk(self.first, self.group, self.rows)
    }
}

/// Two numbers for every element, to be summed over rows. `#[inline(always)]` as [`Walk`].
pub(super) trait Terms: Sync {
    /// What a block is summed in.
    type Wide: Wide;
    /// Adds those of some elements to two accumulators as wide as a tiled row.
    fn add(&self, elements: Range<usize>, first: &mut [Self::Wide], second: &mut [Self::Wide]);
}

/// Two sums per channel over `len` elements, in parallel, `[which][channel]`.
pub(super) fn sum_rows(len: usize, width: usize, terms: &impl Terms) -> Vec<f64> {
    let stretch = stretch_len(width);
    let parts = parallel_map(len.div_ceil(stretch), |index| {
        let elements = index * stretch..len.min((index + 1) * stretch);
        Arch::new().dispatch(Blocks { terms, elements, width })
    });
    total(parts)
}

/// One call of [`sum_blocks`].
struct Blocks<'a, S> {
    terms: &'a S,
    elements: Range<usize>,
    width: usize,
}

impl<S: Terms> NullaryFnOnce for Blocks<'_, S> {
    type Output = Vec<f64>;
    #[inline(always)]
    fn call(self) -> Vec<f64> {
        sum_blocks(self.elements, self.width, self.terms)
    }
}

/// Two sums per channel over the rows of one stretch, `[which][channel]`: blocks of rows in the element's arithmetic, which
/// are then added in f64.
#[inline(always)]
pub(super) fn sum_blocks<S: Terms>(elements: Range<usize>, width: usize, terms: &S) -> Vec<f64> {
    let tiled = tiles(width) * width;
    let mut total = vec![0.0; 2 * width];
    let mut block = vec![S::Wide::ZERO; 2 * tiled];
    for from in elements.clone().step_by(BLOCK * tiled) {
        block.fill(S::Wide::ZERO);
        let (first, second) = block.split_at_mut(tiled);
        terms.add(from..elements.end.min(from + BLOCK * tiled), first, second);
        for (sums, tiles) in total.chunks_mut(width).zip(block.chunks(tiled)) {
            for tile in tiles.chunks(width) {
                sums.iter_mut().zip(tile).for_each(|(sum, x)| *sum += x.to_f64());
            }
        }
    }
    total
}

/// Sums as they are laid out, as the tensor that travels.
pub(super) fn as_sums(values: &[f64], width: usize) -> Sums {
    Tensor::from_slice(values).view([-1, 2, signed(width)])
}

/// The sum of all parts, in their order.
pub(super) fn total(parts: Vec<Vec<f64>>) -> Vec<f64> {
    let add = |mut total: Vec<f64>, part: Vec<f64>| {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        total
    };
    parts.into_iter().reduce(add).expect("a group has rows")
}
