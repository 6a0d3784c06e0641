//! Which bytes go where: each operation as a few exchanges over the mesh.
//!
//! | message | world | all-reduce | exchanges |
//! |---|---|---|---|
//! | up to [`SMALL`] | up to [`DIRECT_WORLD`] | everybody sends all to everybody; each adds | 1 |
//! | up to [`SMALL`] | larger | all to rank 0, which adds and answers | 2 |
//! | larger | any | each rank adds its own chunk, and sends it to all; in pieces | pieces + 1 |
//!
//! The first has the lowest latency, but n(n−1) messages, which 32 processes on 2 cores feel: the
//! second has 2(n−1). The third moves 2(n−1)/n of the data over each rank, the least possible.
//!
//! In each of them whoever adds has all ranks' versions and adds them in rank order, so that the
//! choice can't be seen in the result.

use std::ops::Range;

use super::flow::Flow;
use super::mesh::Mesh;
use super::reduce::in_rank_order;
use crate::device::Element;
use crate::operation::{Kind, Operation};
use crate::{CollectiveError, Rank, Reduction};

/// Bytes up to which latency counts, not bandwidth.
const SMALL: usize = 32 << 10;
/// Largest world in which everybody sends small messages to everybody.
const DIRECT_WORLD: usize = 4;
/// Bytes of one chunk that are under way at once: small enough that what arrives is still in the
/// cache when it is added, large enough that system calls don't count.
const PIECE: usize = 64 << 10;

/// Most bytes that one rank may give to an all-gather.
pub const MAX_GATHERED: usize = 1 << 20;

impl Mesh {
    /// Reduces `buffer` in place on all ranks.
    pub(super) fn all_reduce(
        &mut self,
        operation: &Operation,
        (reduction, element): (Reduction, Element),
        buffer: &mut [u8],
    ) -> Result<(), CollectiveError> {
        let add = Adder { reduction, element, rank: self.rank.index() };
        if buffer.len() > SMALL {
            self.reduce_in_pieces(operation, add, buffer)
        } else if self.world() <= DIRECT_WORLD {
            self.reduce_directly(operation, add, buffer)
        } else {
            self.reduce_at_rank_zero(operation, add, buffer)
        }
    }

    fn reduce_directly(
        &mut self,
        operation: &Operation,
        add: Adder,
        buffer: &mut [u8],
    ) -> Result<(), CollectiveError> {
        let len = buffer.len();
        self.plan(|link, _| Flow {
            send: [0..len, 0..0],
            to_scratch: slot(link, len),
            ..Flow::greet()
        });
        self.exchange(operation, buffer)?;
        add.into(buffer, self);
        Ok(())
    }

    fn reduce_at_rank_zero(
        &mut self,
        operation: &Operation,
        add: Adder,
        buffer: &mut [u8],
    ) -> Result<(), CollectiveError> {
        let len = buffer.len();
        if self.rank != Rank(0) {
            // Rank 0 answers when it has everything, so `buffer` may be sent and received into.
            self.plan(|_, peer| {
                if peer != Rank(0) {
                    return Flow::default();
                }
                Flow { send: [0..len, 0..0], to_buffer: 0..len, ..Flow::greet() }
            });
            return self.exchange(operation, buffer);
        }
        self.plan(|link, _| Flow { expect: true, to_scratch: slot(link, len), ..Flow::default() });
        self.exchange(operation, buffer).inspect_err(|error| self.answer(error, operation))?;
        add.into(buffer, self);
        self.plan(|_, _| Flow { announce: true, send: [0..len, 0..0], ..Flow::default() });
        self.exchange(operation, buffer)
    }

    /// Tells a diverged peer, which has seen no header of ours yet, what we are doing.
    fn answer(&self, error: &CollectiveError, operation: &Operation) {
        if let CollectiveError::Diverged { peer, .. } = error {
            self.tell(*peer, operation);
        }
    }

    /// Reduce-scatter and all-gather, interleaved: in round `k` the ranks exchange piece `k` as it
    /// was, and piece `k − 1` as its owner added it up.
    fn reduce_in_pieces(
        &mut self,
        operation: &Operation,
        add: Adder,
        buffer: &mut [u8],
    ) -> Result<(), CollectiveError> {
        let chunks = Chunks::new(buffer.len(), self.world(), add.element);
        let own = self.rank;
        for round in 0..=chunks.pieces() {
            let added = round.checked_sub(1);
            let mine = chunks.piece(own, Some(round));
            self.plan(|link, peer| Flow {
                announce: round == 0,
                expect: round == 0,
                send: [chunks.piece(peer, Some(round)), chunks.piece(own, added)],
                to_scratch: slot(link, mine.len()),
                to_buffer: chunks.piece(peer, added),
            });
            self.exchange(operation, buffer)?;
            add.into(&mut buffer[mine], self);
        }
        Ok(())
    }

    /// Copies `root`'s `buffer` over everybody's.
    pub(super) fn broadcast(
        &mut self,
        operation: &Operation,
        root: Rank,
        buffer: &mut [u8],
    ) -> Result<(), CollectiveError> {
        let (own, len) = (self.rank, buffer.len());
        self.plan(|_, peer| {
            if own == root {
                Flow { send: [0..len, 0..0], ..Flow::greet() }
            } else if peer == root {
                Flow { to_buffer: 0..len, ..Flow::greet() }
            } else {
                Flow::default()
            }
        });
        self.exchange(operation, buffer)
    }

    /// Everybody's bytes by rank: first the lengths, then the bytes.
    pub(super) fn all_gather(
        &mut self,
        operation: &Operation,
        mine: &[u8],
    ) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.plan(|_, _| Flow::greet());
        self.exchange(operation, &mut [])?;
        let lens = self.lens_within_limit()?;
        let mut end = 0;
        let places: Vec<Range<usize>> = lens
            .iter()
            .map(|len| {
                end += len;
                end - len..end
            })
            .collect();
        self.plan(|link, _| Flow {
            send: [0..mine.len(), 0..0],
            to_scratch: places[link].clone(),
            ..Flow::default()
        });
        self.exchange(operation, &mut mine.to_vec())?;
        let received = self.scratch(end);
        let mut all: Vec<_> = places.into_iter().map(|place| received[place].to_vec()).collect();
        all.insert(self.rank.index(), mine.to_vec());
        Ok(all)
    }

    /// What each peer wants to give, as announced in its header.
    fn lens_within_limit(&self) -> Result<Vec<usize>, CollectiveError> {
        let check = |(rank, len)| match usize::try_from(len) {
            Ok(len) if len <= MAX_GATHERED => Ok(len),
            _ => Err(CollectiveError::TooLarge { rank, len, limit: MAX_GATHERED }),
        };
        self.announced().map(check).collect()
    }

    /// Returns once every rank is here: the reduction of nothing.
    pub(super) fn barrier(&mut self, operation: &Operation) -> Result<(), CollectiveError> {
        debug_assert_eq!(operation.kind, Kind::Barrier);
        self.all_reduce(operation, (Reduction::Sum, Element::F32), &mut [])
    }
}

/// Where the peer behind `link` puts its version of `len` bytes.
fn slot(link: usize, len: usize) -> Range<usize> {
    link * len..(link + 1) * len
}

/// Adds what arrived in the scratch memory to what is ours.
#[derive(Debug, Clone, Copy)]
struct Adder {
    reduction: Reduction,
    element: Element,
    rank: usize,
}

impl Adder {
    fn into(self, own: &mut [u8], mesh: &mut Mesh) {
        let others = mesh.scratch(own.len() * (mesh.world() - 1));
        in_rank_order(self.reduction, self.element, self.rank, own, others);
    }
}

/// A buffer cut into one chunk a rank, and those into pieces. Bytes, at element boundaries.
#[derive(Debug, Clone, Copy)]
struct Chunks {
    elements: usize,
    world: usize,
    element_size: usize,
}

impl Chunks {
    fn new(bytes: usize, world: usize, element: Element) -> Self {
        Self { elements: bytes / element.size(), world, element_size: element.size() }
    }

    /// Pieces of the longest chunk.
    fn pieces(self) -> usize {
        (self.elements.div_ceil(self.world) * self.element_size).div_ceil(PIECE)
    }

    /// A piece of `owner`'s chunk; empty beyond its end, and where there is none.
    fn piece(self, owner: Rank, index: Option<usize>) -> Range<usize> {
        let Some(index) = index else { return 0..0 };
        let bound = |rank: usize| self.elements * rank / self.world * self.element_size;
        let (start, end) = (bound(owner.index()), bound(owner.index() + 1));
        (start + index * PIECE).min(end)..(start + (index + 1) * PIECE).min(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_tile_the_buffer_at_element_boundaries(
            elements in 0_usize..3_000_000, world in 1_u32..40,
        ) {
            let chunks = Chunks::new(elements * 8, world as usize, Element::F64);
            let mut next = 0;
            for owner in (0..world).map(Rank) {
                for index in 0..chunks.pieces() {
                    let piece = chunks.piece(owner, Some(index));
                    prop_assert_eq!(piece.start % 8, 0);
                    prop_assert!(piece.len() <= PIECE);
                    prop_assert_eq!(piece.start, next);
                    next = piece.end;
                }
                prop_assert!(chunks.piece(owner, Some(chunks.pieces())).is_empty());
            }
            prop_assert_eq!(next, elements * 8);
        }
    }
}
