//! The NCCL backend: ranks on GPUs.

mod collective;
mod error;
mod id;

use std::sync::Arc;

pub use self::collective::{NcclCollective, NcclSpec};
pub use self::error::NcclError;
pub use self::id::UniqueId;

/// NCCL, opened. Cheap to clone; one per process.
#[derive(Debug, Clone)]
pub struct Nccl {
    library: Arc<Library>,
}

#[derive(Debug)]
struct Library {
    version: u32,
}

impl Nccl {
    /// Finds the library, and checks that it is there, whole, and of a version that this build
    /// works with, before anything else is called in it.
    ///
    /// It is the one that libtorch has loaded, where it has; else the file named in
    /// `LOCKSTEP_NCCL_LIBRARY`, else `libnccl.so.2`.
    pub fn load() -> Result<Self, NcclError> {
        Err(NcclError::Absent { tried: "this commit fixes the signatures only".into() })
    }

    /// Its version, as NCCL counts: 22907 is 2.29.7.
    pub fn version(&self) -> u32 {
        self.library.version
    }

    /// A fresh id, for one attempt to form one communicator. The process that asks must stay: the
    /// ranks meet there.
    pub fn unique_id(&self) -> Result<UniqueId, NcclError> {
        UniqueId::from_bytes(&[])
    }
}
