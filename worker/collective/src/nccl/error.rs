//! Why NCCL can't be used in this process.

use std::path::PathBuf;

use crate::NcclFailure;

/// NCCL, or the CUDA driver below it, is missing or unfit. A matter for whoever set up this machine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NcclError {
    /// There is no library.
    #[error(
        "found no libnccl: {tried}; use the libtorch for CUDA, which brings it, or name the file \
         in LOCKSTEP_NCCL_LIBRARY"
    )]
    Absent {
        /// What was tried, and why it failed.
        tried: String,
    },
    /// Another copy is in this process already.
    #[error(
        "this process already uses {loaded}, so it can't use {asked} too: two copies of NCCL \
         corrupt each other; unset LOCKSTEP_NCCL_LIBRARY, or name the loaded one"
    )]
    TwoCopies {
        /// The one in memory.
        loaded: PathBuf,
        /// The one asked for.
        asked: PathBuf,
    },
    /// It lacks a function.
    #[error("{library} lacks {symbol}; install NCCL 2.29 or newer")]
    MissingSymbol {
        /// The file.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// It is too old or too new.
    #[error(
        "{library} is NCCL {}; this build works with 2.29 or newer, below 3: \
         install the libtorch that this build names", dotted(*.version)
    )]
    Version {
        /// The file.
        library: String,
        /// Its version, as `ncclGetVersion` counts.
        version: u32,
    },
    /// A call that needs no communicator failed.
    #[error("{call} failed: {failure}")]
    Call {
        /// The function.
        call: &'static str,
        /// What NCCL said.
        failure: NcclFailure,
    },
    /// Not the length of an id.
    #[error("a unique id of {len} bytes; NCCL's have 128: run one build everywhere")]
    BadId {
        /// Its length.
        len: usize,
    },
    /// The driver is missing.
    #[error("found no CUDA driver: {reason}; install NVIDIA's driver, or use --device cpu")]
    NoDriver {
        /// What the dynamic linker says.
        reason: String,
    },
    /// The real library asked to work without a GPU, or the fake one with it.
    #[error(
        "{library} works on {}; start the worker with a device of that kind",
        if *.on_host { "host memory only: it is made for tests" } else { "GPUs only" }
    )]
    WrongMemory {
        /// The file.
        library: String,
        /// Whether it works on host memory.
        on_host: bool,
    },
}

/// NCCL's version code as people write it.
pub(super) fn dotted(version: u32) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}
