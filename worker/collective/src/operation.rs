//! One operation of a communicator, in words and, for the host backend, as the header in front of it:
//! what a rank believes that all are doing.

use std::fmt;

use crate::{Element, Rank, Reduction, wire};

pub(crate) const HEADER_LEN: usize = 2 + 1 + 1 + 4 + 8 + 8 + 8;

const MAGIC: &[u8; 2] = b"LO";

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AllReduce(Reduction, Element),
    Broadcast(Rank, Element),
    AllGather,
    Barrier,
}

/// One operation of one communicator. Equal on all ranks, save for the length of an all-gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) generation: u64,
    /// Its number on this communicator, from 1.
    pub(crate) sequence: u64,
    /// In elements; bytes for an all-gather.
    pub(crate) len: u64,
}

impl Operation {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let (kind, element, root) = match self.kind {
            Kind::AllReduce(Reduction::Sum, element) => (0, code(element), 0),
            Kind::AllReduce(Reduction::Max, element) => (1, code(element), 0),
            Kind::Broadcast(root, element) => (2, code(element), root.0),
            Kind::AllGather => (3, 0, 0),
            Kind::Barrier => (4, 0, 0),
        };
        let mut bytes = [0; HEADER_LEN];
        let mut writer = wire::Writer::new(&mut bytes);
        writer.put(MAGIC);
        writer.put(&[kind, element]);
        writer.put(&root.to_le_bytes());
        writer.put(&self.generation.to_le_bytes());
        writer.put(&self.sequence.to_le_bytes());
        writer.put(&self.len.to_le_bytes());
        bytes
    }

    /// `None` where it is no header at all.
    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let mut reader = wire::Reader::new(bytes);
        if reader.take() != *MAGIC {
            return None;
        }
        let [kind, element] = reader.take();
        let root = Rank(u32::from_le_bytes(reader.take()));
        let element = match element {
            0 => Element::F32,
            1 => Element::F64,
            2 => Element::Bf16,
            _ => return None,
        };
        let kind = match kind {
            0 => Kind::AllReduce(Reduction::Sum, element),
            1 => Kind::AllReduce(Reduction::Max, element),
            2 => Kind::Broadcast(root, element),
            3 => Kind::AllGather,
            4 => Kind::Barrier,
            _ => return None,
        };
        Some(Self {
            kind,
            generation: u64::from_le_bytes(reader.take()),
            sequence: u64::from_le_bytes(reader.take()),
            len: u64::from_le_bytes(reader.take()),
        })
    }

    /// The length in a peer's header, where it describes the same operation;
    /// otherwise what the peer is doing, in words.
    pub(crate) fn agree(&self, header: &[u8; HEADER_LEN]) -> Result<u64, String> {
        let theirs = Self::decode(header).ok_or("something that is no operation")?;
        let expected = match self.kind {
            Kind::AllGather => Self { len: theirs.len, ..*self },
            Kind::AllReduce(..) | Kind::Broadcast(..) | Kind::Barrier => *self,
        };
        if theirs == expected { Ok(theirs.len) } else { Err(theirs.to_string()) }
    }
}

fn code(element: Element) -> u8 {
    match element {
        Element::F32 => 0,
        Element::F64 => 1,
        Element::Bf16 => 2,
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, generation, sequence, len } = self;
        match kind {
            Kind::AllReduce(reduction, element) => {
                write!(f, "all-reduce {sequence} ({reduction:?} of {len} {element:?}")
            }
            Kind::Broadcast(root, element) => {
                write!(f, "broadcast {sequence} ({len} {element:?} from rank {root}")
            }
            Kind::AllGather => write!(f, "all-gather {sequence} ({len} bytes"),
            Kind::Barrier => write!(f, "barrier {sequence} ("),
        }?;
        let comma = if *kind == Kind::Barrier { "" } else { ", " };
        write!(f, "{comma}generation {generation})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: Operation = Operation {
        kind: Kind::AllReduce(Reduction::Sum, Element::F32),
        generation: 3,
        sequence: 12,
        len: 1000,
    };

    #[test]
    fn every_operation_agrees_with_itself() {
        let kinds = [
            Kind::AllReduce(Reduction::Sum, Element::F64),
            Kind::AllReduce(Reduction::Max, Element::F32),
            Kind::AllReduce(Reduction::Sum, Element::Bf16),
            Kind::Broadcast(Rank(4), Element::F64),
            Kind::AllGather,
            Kind::Barrier,
        ];
        for kind in kinds {
            let operation = Operation { kind, ..SUM };
            assert_eq!(operation.agree(&operation.encode()), Ok(1000));
        }
    }

    #[test]
    fn any_other_field_is_a_disagreement_told_in_words() {
        let others = [
            Operation { kind: Kind::AllReduce(Reduction::Max, Element::F32), ..SUM },
            Operation { kind: Kind::AllReduce(Reduction::Sum, Element::F64), ..SUM },
            Operation { generation: 4, ..SUM },
            Operation { sequence: 13, ..SUM },
            Operation { len: 999, ..SUM },
        ];
        for other in others {
            assert_eq!(SUM.agree(&other.encode()), Err(other.to_string()));
        }
        assert_eq!(SUM.to_string(), "all-reduce 12 (Sum of 1000 F32, generation 3)");
        assert!(SUM.agree(&[b'x'; HEADER_LEN]).unwrap_err().contains("no operation"));
    }

    #[test]
    fn lengths_of_an_all_gather_may_differ() {
        let ours = Operation { kind: Kind::AllGather, ..SUM };
        let theirs = Operation { len: 5, ..ours };
        assert_eq!(ours.agree(&theirs.encode()), Ok(5));
    }
}
