//! Every operation, with numbers that show any mistake: backends are compared by the bits that come out.

use half::bf16;
use lockstep_collective::{Collective, CollectiveError, Element, Rank, Reduction};

use crate::buffer::Buffer;

/// Around the edges: nothing, one, odd, many; the last does not fit into staging memory.
const LENGTHS: [usize; 5] = [0, 1, 1001, 65_536, 1_100_001];

/// Does everything, and returns the bits of all results.
pub(crate) fn everything(ends: &mut dyn Collective) -> Result<Vec<u8>, CollectiveError> {
    let mut bits = Vec::new();
    let elements = [Element::F32, Element::F64, Element::Bf16];
    for (element, len) in elements.into_iter().flat_map(|element| LENGTHS.map(|len| (element, len)))
    {
        for reduction in [Reduction::Sum, Reduction::Max] {
            bits.extend(reduced(ends, (element, len), reduction)?);
        }
        for root in 0..ends.world() {
            let mut buffer = Buffer::new(element, numbers(ends.rank(), len));
            ends.broadcast(buffer.region(), Rank(root))?;
            bits.extend_from_slice(buffer.bytes());
        }
    }
    for len in [0, 1, 1000, 300_000] {
        // Of different lengths, and nothing from rank 0.
        let mine: Vec<u8> = (0..len * ends.rank().0).map(|i| i.to_le_bytes()[0]).collect();
        for theirs in ends.all_gather(&mine)? {
            bits.extend((theirs.len() as u64).to_le_bytes());
            bits.extend(theirs);
        }
    }
    ends.barrier()?;
    bits.extend(ends.sequence().to_le_bytes());
    Ok(bits)
}

/// Two regions under way at once, and a borrow.
fn reduced(
    ends: &mut dyn Collective,
    (element, len): (Element, usize),
    reduction: Reduction,
) -> Result<Vec<u8>, CollectiveError> {
    let mut buffers = [0, 1].map(|shift| Buffer::new(element, numbers(ends.rank(), len + shift)));
    let first = ends.start_all_reduce(buffers[0].region(), reduction)?;
    let second = ends.start_all_reduce(buffers[1].region(), reduction)?;
    #[expect(clippy::cast_possible_truncation, reason = "the narrow type is what is tested")]
    let mut narrow: Vec<f32> = numbers(ends.rank(), len).map(|x| x as f32).collect();
    let mut wide: Vec<f64> = numbers(ends.rank(), len).collect();
    let mut half: Vec<bf16> = wide.iter().map(|&x| bf16::from_f64(x)).collect();
    match element {
        Element::Bf16 => ends.all_reduce((&mut half[..]).into(), reduction)?,
        Element::F32 => ends.all_reduce((&mut narrow[..]).into(), reduction)?,
        Element::F64 => ends.all_reduce((&mut wide[..]).into(), reduction)?,
    }
    ends.wait(second)?;
    ends.wait(first)?;
    let [one, two] = &mut buffers;
    let narrow = narrow.iter().flat_map(|x| x.to_le_bytes());
    let wide = wide.iter().flat_map(|x| x.to_le_bytes());
    let half = half.iter().flat_map(|x| x.to_le_bytes());
    let borrowed = narrow.chain(wide).chain(half);
    Ok([one.bytes(), two.bytes()].concat().into_iter().chain(borrowed).collect())
}

/// What a rank brings: of all sizes and signs, so that another order of addition shows.
fn numbers(rank: Rank, len: usize) -> impl Iterator<Item = f64> {
    (0..len as u64).map(move |i| {
        let mixed = (i + 1 + u64::from(rank.0) * 7919).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let size = 2_f64.powi(i32::from(mixed.to_le_bytes()[0] % 24) - 12);
        #[expect(clippy::cast_precision_loss, reason = "any number will do")]
        let fraction = (mixed >> 12) as f64 / (1_u64 << 51) as f64 - 1.0;
        fraction * size
    })
}
