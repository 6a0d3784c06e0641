//! The NCCL backend: ranks on GPUs.
//!
//! ```text
//!  Nccl::load ── library.rs: which file ── sys.rs, cuda.rs: its functions (the two fences)
//!     │
//!  NcclCollective::form(NcclSpec) ──▶ collective.rs     operations of the trait
//!                                     communicator.rs   queues them, asks whether they are over,
//!                                                       aborts
//!                                     closing.rs        ends communicators on their own threads
//!                                     history.rs        the last operations, for the log of an abort
//! ```
//!
//! No call of a communicator blocks: NCCL is asked to return at once, and then asked whether it is
//! done ([`patience`]), until the deadline or the abort switch. What each failure leads to stands in
//! `NCCL.md` beside this crate's `Cargo.toml`, and is tested there line by line with a fake library.
//!
//! Three differences from the host backend:
//!
//! * NCCL adds in an order of its own, which depends on its topology: the bits are the same on all
//!   ranks, but not those of the host backend, and not those of other machines;
//! * its maximum may drop a NaN;
//! * it does not check that all ranks mean the same operation. Ranks that diverge wait for each other
//!   until the deadline; the history in the log then shows who issued what.

mod closing;
mod collective;
mod communicator;
mod cuda;
mod error;
mod history;
mod id;
mod library;
mod patience;
#[cfg(test)]
mod real;
mod sys;

use std::sync::{Arc, OnceLock};

use self::closing::Closing;
use self::cuda::Driver;
use self::library::Found;
use self::sys::Api;

pub use self::collective::{NcclCollective, NcclSpec};
pub use self::error::NcclError;
pub use self::id::UniqueId;

/// NCCL, opened. Cheap to clone; one per process.
#[derive(Debug, Clone)]
pub struct Nccl {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    library: Found,
    api: Arc<Api>,
    driver: OnceLock<Result<Driver, NcclError>>,
    closing: Closing,
}

impl Nccl {
    /// Finds the library, and checks that it is there, whole, and of a version that this build
    /// works with, before anything else is called in it.
    ///
    /// It is the one that libtorch has loaded, where it has; else the file named in
    /// `LOCKSTEP_NCCL_LIBRARY`, else `libnccl.so.2`.
    pub fn load() -> Result<Self, NcclError> {
        let library = library::find()?;
        let missing = |symbol| NcclError::MissingSymbol { library: library.name.clone(), symbol };
        let api = Arc::new(Api::open(library.opened, library.version).map_err(missing)?);
        let (driver, closing) = (OnceLock::new(), Closing::default());
        Ok(Self { shared: Arc::new(Shared { library, api, driver, closing }) })
    }

    /// Its version, as NCCL counts: 22907 is 2.29.7.
    pub fn version(&self) -> u32 {
        self.shared.library.version
    }

    /// A fresh id, for one attempt to form one communicator. The process that asks must stay: the
    /// ranks meet there.
    pub fn unique_id(&self) -> Result<UniqueId, NcclError> {
        self.shared.api.unique_id()
    }

    fn api(&self) -> Arc<Api> {
        Arc::clone(&self.shared.api)
    }

    fn closing(&self) -> Closing {
        self.shared.closing.clone()
    }

    /// The driver for a device, and the GPU's number there. The library for tests is its own driver.
    fn driver(&self, device: Option<u32>) -> Result<(Driver, u32), NcclError> {
        let Found { opened, name, on_host, .. } = &self.shared.library;
        if device.is_none() != *on_host {
            return Err(NcclError::WrongMemory { library: name.clone(), on_host: *on_host });
        }
        let opened = on_host.then_some(*opened);
        let driver = self.shared.driver.get_or_init(|| Driver::open(opened)).clone()?;
        Ok((driver, device.unwrap_or(0)))
    }
}
