//! Who trains together: the part of a world that is the same for all of its ranks.
//!
//! A world of n ranks is announced n times, with n members each. So the list is shared between these messages, and its
//! encoding too.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use prost::Message;
use prost::bytes::Bytes;

use crate::border::{Border, Malformed};
use crate::coordinator_message::LaneRange;
use crate::ids::{Slot, WorkerUid};
use crate::limits::MAX_MEMBERS;
use crate::wire;

/// One rank of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which process.
    pub worker: WorkerUid,
    /// Its slot.
    pub slot: Slot,
    /// Where its collectives listen.
    pub collective_address: SocketAddr,
    /// Lanes dealt to it.
    pub lanes: LaneRange,
}

/// Members in rank order. Clones share the list and its encoding.
#[derive(Clone)]
pub struct Members(Arc<Shared>);

struct Shared {
    list: Box<[Member]>,
    encoded: OnceLock<Bytes>,
}

impl Members {
    pub(crate) fn decode(encoded: Bytes) -> Result<Self, Malformed> {
        const B: Border = Border("World");
        let wire::Members { members } = wire::Members::decode(encoded)
            .map_err(|error| B.malformed("members", format!("can't be read: {error}")))?;
        B.some("members", &members, MAX_MEMBERS)?;
        members.into_iter().map(TryInto::try_into).collect()
    }

    /// As it goes over the wire: made for the first receiver, shared by the others.
    pub(crate) fn encoded(&self) -> Bytes {
        let encode = || {
            let members = self.iter().cloned().map(Into::into).collect();
            wire::Members { members }.encode_to_vec().into()
        };
        self.0.encoded.get_or_init(encode).clone()
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let list = members.into_iter().collect();
        Self(Arc::new(Shared { list, encoded: OnceLock::new() }))
    }
}

impl Deref for Members {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        &self.0.list
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Members {}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = Malformed;

    fn try_from(member: wire::Member) -> Result<Self, Malformed> {
        const B: Border = Border("Member");
        let wire::Member { worker_uid, slot, collective_address, first_lane, lanes } = member;
        Ok(Self {
            worker: WorkerUid(B.name("worker_uid", worker_uid)?),
            slot: Slot(slot),
            collective_address: B.address("collective_address", &collective_address)?,
            lanes: LaneRange { first: first_lane, count: B.positive("lanes", lanes)? },
        })
    }
}

impl From<Member> for wire::Member {
    fn from(member: Member) -> Self {
        let Member { worker, slot, collective_address, lanes } = member;
        let LaneRange { first, count } = lanes;
        Self {
            worker_uid: worker.0,
            slot: slot.0,
            collective_address: collective_address.to_string(),
            first_lane: first,
            lanes: count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_encoded_once_for_all_receivers() {
        let members = Members::from_iter([member()]);
        let (one, other) = (members.encoded(), members.clone().encoded());
        assert_eq!(one.as_ptr(), other.as_ptr());
        assert_eq!(Members::decode(one).unwrap(), members);
    }

    #[test]
    fn a_world_without_members_or_with_bytes_that_are_none_is_refused() {
        let error = Members::decode(Bytes::new()).unwrap_err();
        assert_eq!(error.to_string(), "World.members is empty");
        let error = Members::decode(Bytes::from_static(&[0xff])).unwrap_err().to_string();
        assert!(error.starts_with("World.members can't be read: "), "{error}");
    }

    fn member() -> Member {
        Member {
            worker: WorkerUid("w-1".into()),
            slot: Slot(0),
            collective_address: "127.0.0.1:5000".parse().unwrap(),
            lanes: LaneRange { first: 0, count: 8 },
        }
    }
}
