//! The arithmetic of a reduction: pure, and always in rank order.

use half::bf16;

use crate::Reduction;
use crate::device::Element;

/// Reduces the ranks' versions of one stretch into `own`.
///
/// `own` is rank `rank`'s version; `others` holds those of the other ranks, one after the other
/// in rank order. With `op` the reduction, the result is `((r₀ op r₁) op r₂) op …`.
///
/// The bytes are aligned for `element`. Contents of `others` are lost.
pub(super) fn in_rank_order(
    reduction: Reduction,
    element: Element,
    rank: usize,
    own: &mut [u8],
    others: &mut [u8],
) {
    match (element, reduction) {
        (Element::Bf16, Reduction::Sum) => fold::<bf16>(rank, own, others, |a, b| a + b),
        (Element::F32, Reduction::Sum) => fold::<f32>(rank, own, others, |a, b| a + b),
        (Element::F64, Reduction::Sum) => fold::<f64>(rank, own, others, |a, b| a + b),
        (Element::Bf16, Reduction::Max) => {
            fold::<bf16>(rank, own, others, |a, b| if b > a || b.is_nan() { b } else { a });
        }
        (Element::F32, Reduction::Max) => {
            fold::<f32>(rank, own, others, |a, b| if b > a || b.is_nan() { b } else { a });
        }
        (Element::F64, Reduction::Max) => {
            fold::<f64>(rank, own, others, |a, b| if b > a || b.is_nan() { b } else { a });
        }
    }
}

/// Generic in `op`, not through a pointer, so that each loop is compiled for it and vectorized.
fn fold<T: bytemuck::Pod>(
    rank: usize,
    own: &mut [u8],
    others: &mut [u8],
    op: impl Fn(T, T) -> T + Copy,
) {
    if own.is_empty() {
        return;
    }
    let own: &mut [T] = bytemuck::cast_slice_mut(own);
    let others: &mut [T] = bytemuck::cast_slice_mut(others);
    let len = own.len();
    let (before, after) = others.split_at_mut(rank * len);
    if let Some((first, rest)) = before.split_at_mut_checked(len) {
        for other in rest.chunks_exact(len) {
            accumulate(first, other, op);
        }
        for (mine, &sum) in own.iter_mut().zip(&*first) {
            *mine = op(sum, *mine);
        }
    }
    for other in after.chunks_exact(len) {
        accumulate(own, other, op);
    }
}

fn accumulate<T: Copy>(sum: &mut [T], other: &[T], op: impl Fn(T, T) -> T) {
    for (sum, &other) in sum.iter_mut().zip(other) {
        *sum = op(*sum, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rank `rank`'s result of reducing one column per rank.
    fn reduce(reduction: Reduction, rank: usize, ranks: &[[f32; 2]]) -> [u32; 2] {
        let mut own = ranks[rank];
        let mut others: Vec<f32> =
            ranks.iter().enumerate().filter(|(r, _)| *r != rank).flat_map(|(_, v)| *v).collect();
        in_rank_order(
            reduction,
            Element::F32,
            rank,
            bytemuck::cast_slice_mut(&mut own),
            bytemuck::cast_slice_mut(&mut others),
        );
        own.map(f32::to_bits)
    }

    #[test]
    fn a_sum_has_the_bits_of_rank_order_whichever_rank_computes_it() {
        // (1e8 + 1) - 1e8 + 1 = 1 in f32, and 2 in another order.
        let ranks = [[1e8, 0.1], [1.0, 0.2], [-1e8, 0.3], [1.0, 0.4]];
        let expected = [1.0, ((0.1_f32 + 0.2) + 0.3) + 0.4].map(f32::to_bits);
        for rank in 0..ranks.len() {
            assert_eq!(reduce(Reduction::Sum, rank, &ranks), expected, "rank {rank}");
        }
    }

    #[test]
    fn a_nan_on_any_rank_wins_the_maximum() {
        let ranks = [[1.0, 5.0], [f32::NAN, 7.0], [2.0, 6.0]];
        for rank in 0..ranks.len() {
            let [nan, largest] = reduce(Reduction::Max, rank, &ranks).map(f32::from_bits);
            assert!(nan.is_nan());
            assert_eq!(largest.to_bits(), 7.0_f32.to_bits());
        }
    }
}
