//! What carries the collectives of this process.
//!
//! The run's configuration chooses; `auto` takes NCCL for a GPU, where this program is built with it. The coordinator hears
//! of the choice with every enlistment, and refuses a world of different ones.
//!
//! Not here: how ranks that use the host's meet (`world.rs`).

#[cfg(feature = "nccl")]
mod nccl;
#[cfg(not(feature = "nccl"))]
#[path = "backend/without_nccl.rs"]
mod nccl;

use lockstep_proto::config::BackendChoice;
use tch::Device;

use crate::commands::Misuse;

pub(crate) use self::nccl::Nccl;

/// What carries collectives.
#[derive(Debug)]
pub(crate) enum Backend {
    /// Host memory and TCP.
    Host,
    /// NCCL.
    Nccl(Nccl),
}

impl Backend {
    /// What the configuration means for this device; opened, so that faults show before there is a world.
    pub(crate) fn open(choice: BackendChoice, device: Device) -> Result<Self, Misuse> {
        let nccl = match choice {
            BackendChoice::Host => false,
            BackendChoice::Nccl => true,
            BackendChoice::Auto => device.is_cuda() && cfg!(feature = "nccl"),
        };
        if nccl { Nccl::open().map(Self::Nccl) } else { Ok(Self::Host) }
    }

    /// As the coordinator hears of it.
    pub(crate) fn name(&self) -> lockstep_proto::Backend {
        match self {
            Self::Host => lockstep_proto::Backend::Host,
            Self::Nccl(nccl) => lockstep_proto::Backend::Nccl { version: nccl.version() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_on_cpus_use_the_host_unless_told_otherwise() {
        for choice in [BackendChoice::Auto, BackendChoice::Host] {
            let backend = Backend::open(choice, Device::Cpu).unwrap();
            assert_eq!(backend.name(), lockstep_proto::Backend::Host);
        }
    }

    #[cfg(not(feature = "nccl"))]
    #[test]
    fn a_worker_built_without_nccl_says_how_to_build_it_with() {
        let error = Backend::open(BackendChoice::Nccl, Device::Cpu).unwrap_err();
        assert!(error.0.contains("cargo build --release --features worker/nccl"), "{error}");
    }
}
