//! What carries the collectives of a world, and how its ranks find each other there.

use std::fmt;

use crate::border::{Border, Malformed};
use crate::ids::Generation;
use crate::limits::COMMUNICATOR_ID_BYTES;
use crate::wire;

/// What carries the collectives of a worker. All ranks of a world must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Host memory and TCP, by this program.
    Host,
    /// NCCL.
    Nccl {
        /// Its version code, at least 1; for example 22907 for 2.29.7.
        version: u32,
    },
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host collectives"),
            Self::Nccl { version } => {
                let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
                write!(f, "NCCL {major}.{minor}.{patch}")
            }
        }
    }
}

/// Where the ranks of one communicator meet; good for one attempt. Whoever knows it can join, so it prints nothing of
/// itself.
#[derive(Clone, PartialEq, Eq)]
pub struct CommunicatorId(pub [u8; COMMUNICATOR_ID_BYTES]);

impl fmt::Debug for CommunicatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommunicatorId(..)")
    }
}

/// The communicators of a world: made by rank 0, handed on to every rank by the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommunicatorIds {
    /// The world.
    pub generation: Generation,
    /// Of batch-norm statistics.
    pub statistics: CommunicatorId,
    /// Of gradients.
    pub gradients: CommunicatorId,
}

impl Backend {
    pub(crate) fn from_wire(
        border: Border,
        (kind, version): (i32, u32),
    ) -> Result<Self, Malformed> {
        use wire::CollectiveBackend as Kind;
        match Kind::try_from(kind) {
            Ok(Kind::Host) if version == 0 => Ok(Self::Host),
            Ok(Kind::Host) => {
                Err(border.malformed("backend_version", format!("is {version}, expected 0")))
            }
            Ok(Kind::Nccl) => {
                Ok(Self::Nccl { version: border.positive("backend_version", version)? })
            }
            Ok(Kind::Unspecified) | Err(_) => {
                Err(border.malformed("backend", format!("is {kind}, which is no backend")))
            }
        }
    }

    pub(crate) fn to_wire(self) -> (i32, u32) {
        match self {
            Self::Host => (wire::CollectiveBackend::Host.into(), 0),
            Self::Nccl { version } => (wire::CollectiveBackend::Nccl.into(), version),
        }
    }
}

impl TryFrom<wire::CommunicatorIds> for CommunicatorIds {
    type Error = Malformed;

    fn try_from(ids: wire::CommunicatorIds) -> Result<Self, Malformed> {
        const B: Border = Border("CommunicatorIds");
        let wire::CommunicatorIds { generation, statistics, gradients } = ids;
        let id = |field, bytes: Vec<u8>| {
            let id = <[u8; COMMUNICATOR_ID_BYTES]>::try_from(bytes).map_err(|bytes| {
                let len = bytes.len();
                B.malformed(field, format!("has {len} bytes, expected {COMMUNICATOR_ID_BYTES}"))
            });
            id.map(CommunicatorId)
        };
        let (statistics, gradients) = (id("statistics", statistics)?, id("gradients", gradients)?);
        if statistics == gradients {
            return Err(B.malformed("gradients", "is that of the statistics"));
        }
        let generation = Generation(B.positive("generation", generation)?);
        Ok(Self { generation, statistics, gradients })
    }
}

impl From<CommunicatorIds> for wire::CommunicatorIds {
    fn from(ids: CommunicatorIds) -> Self {
        let CommunicatorIds { generation, statistics, gradients } = ids;
        Self {
            generation: generation.0,
            statistics: statistics.0.into(),
            gradients: gradients.0.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: Border = Border("Enlist");

    fn ids() -> CommunicatorIds {
        CommunicatorIds {
            generation: Generation(3),
            statistics: CommunicatorId([71; COMMUNICATOR_ID_BYTES]),
            gradients: CommunicatorId([72; COMMUNICATOR_ID_BYTES]),
        }
    }

    #[test]
    fn ids_survive_the_wire_and_print_nothing_of_themselves() {
        let wire = wire::CommunicatorIds::from(ids());
        assert_eq!(CommunicatorIds::try_from(wire).unwrap(), ids());
        let printed = format!("{:?}", ids());
        assert!(!printed.contains("71") && !printed.contains("72"), "{printed}");
    }

    #[test]
    fn ids_of_another_length_or_twice_the_same_are_refused() {
        let mut short = wire::CommunicatorIds::from(ids());
        short.gradients.pop();
        let error = CommunicatorIds::try_from(short).unwrap_err();
        assert_eq!(error.to_string(), "CommunicatorIds.gradients has 127 bytes, expected 128");
        let mut same = wire::CommunicatorIds::from(ids());
        same.gradients.clone_from(&same.statistics);
        let error = CommunicatorIds::try_from(same).unwrap_err();
        assert_eq!(error.to_string(), "CommunicatorIds.gradients is that of the statistics");
    }

    #[test]
    fn a_backend_survives_the_wire_and_has_a_version_where_it_means_something() {
        for backend in [Backend::Host, Backend::Nccl { version: 22_907 }] {
            assert_eq!(Backend::from_wire(B, backend.to_wire()), Ok(backend));
        }
        for (wire, complaint) in [
            ((0, 0), "Enlist.backend is 0, which is no backend"),
            ((9, 0), "Enlist.backend is 9, which is no backend"),
            ((1, 5), "Enlist.backend_version is 5, expected 0"),
            ((2, 0), "Enlist.backend_version is 0, expected at least 1"),
        ] {
            assert_eq!(Backend::from_wire(B, wire).unwrap_err().to_string(), complaint);
        }
    }

    #[test]
    fn a_backend_prints_as_people_write_it() {
        assert_eq!(Backend::Nccl { version: 22_907 }.to_string(), "NCCL 2.29.7");
        assert_eq!(Backend::Host.to_string(), "host collectives");
    }
}
