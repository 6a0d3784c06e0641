//! The arithmetic, on bytes as they travel.

use half::bf16;

/// How numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Sum,
    Max,
}

/// What the numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    F32,
    F64,
    Bf16,
}

/// Everybody's numbers, combined in rank order.
pub(crate) fn combine(number: Number, operator: Operator, all: Vec<Vec<u8>>) -> Vec<u8> {
    all.into_iter()
        .reduce(|mut sum, next| {
            match number {
                Number::F32 => fold(&mut sum, &next, |a, b| {
                    apply(operator, f32::from_le_bytes(a), f32::from_le_bytes(b)).to_le_bytes()
                }),
                Number::Bf16 => fold(&mut sum, &next, |a, b| {
                    apply(operator, bf16::from_le_bytes(a), bf16::from_le_bytes(b)).to_le_bytes()
                }),
                Number::F64 => fold(&mut sum, &next, |a, b| {
                    apply(operator, f64::from_le_bytes(a), f64::from_le_bytes(b)).to_le_bytes()
                }),
            }
            sum
        })
        .unwrap_or_default()
}

fn fold<const N: usize>(sum: &mut [u8], next: &[u8], add: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
    let pairs = sum.as_chunks_mut().0.iter_mut().zip(next.as_chunks().0);
    pairs.for_each(|(sum, next)| *sum = add(*sum, *next));
}

/// As CUDA's `fmax` does, the maximum drops a NaN.
fn apply<T: std::ops::Add<Output = T> + PartialOrd>(operator: Operator, a: T, b: T) -> T {
    #[expect(clippy::eq_op, reason = "only a NaN differs from itself")]
    let a_is_nan = a != a;
    match operator {
        Operator::Sum => a + b,
        Operator::Max if a_is_nan || b > a => b,
        Operator::Max => a,
    }
}
