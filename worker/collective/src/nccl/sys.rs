//! The fence around NCCL: every call into it, and nothing else.
//!
//! Only the *types* come from cudarc's bindings (the layout of `ncclConfig_t` above all). Its functions
//! do not: they look for names that no wheel has, panic where they find none, can't be told which
//! file to use, and return an enum, which is undefined behaviour for a code that it lacks. So the
//! functions are looked up here, in the file that `library.rs` found, and codes stay integers.
//!
//! The rule that keeps these calls sound: memory that an operation reads or writes is a [`Region`]'s,
//! which lasts until `wait`, or a [`Staging`](super::cuda::Staging)'s, which lasts as long as its
//! communicator; and neither `communicator.rs` nor `closing.rs` ends one before the event behind the
//! operation has come.

#![expect(unsafe_code, reason = "calls of NCCL's functions; every block states its invariant")]

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};

use cudarc::nccl::sys::{
    cudaStream_t, ncclComm, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId,
};
use libloading::Library;

use super::cuda::Stream;
use super::{NcclError, UniqueId};
use crate::{Element, NcclCode, NcclFailure, Rank, Reduction, Region};

/// A shared library that stays open until the process ends: threads of NCCL may run in it as long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    library: &'static Library,
}

impl Opened {
    /// Opens it, or finds it open; the linker says why not.
    pub(super) fn new(name: &Path) -> Result<Self, String> {
        // SAFETY: NVIDIA's libraries, and the fake, may be initialised on any thread at any time.
        let library = unsafe { Library::new(name) }.map_err(|error| {
            // "dlopen failed"; the linker's own words are its source.
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        Ok(Self { library: Box::leak(Box::new(library)) })
    }

    pub(super) fn has(self, symbol: &'static str) -> bool {
        // SAFETY: only whether it is there is asked; nothing is read through the pointer.
        unsafe { self.library.get::<*const c_void>(symbol) }.is_ok()
    }

    /// A function by its name, or that name.
    ///
    /// # Safety
    ///
    /// `F` is a function pointer of the type that the function has.
    pub(super) unsafe fn function<F: Copy>(self, symbol: &'static str) -> Result<F, &'static str> {
        // SAFETY: promised by the caller.
        unsafe { self.library.get::<F>(symbol) }.map(|function| *function).map_err(|_| symbol)
    }
}

/// A table of functions of one library: its struct, and `open`, which fails with the name of the
/// first that is missing.
macro_rules! functions {
    ($table:ident { $($name:ident($($argument:ty),*) -> $result:ty;)* }) => {
        #[derive(Debug, Clone, Copy)]
        #[expect(non_snake_case, reason = "the library's own names")]
        struct $table { $($name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl $table {
            fn open(library: crate::nccl::sys::Opened) -> Result<Self, &'static str> {
                Ok(Self {
                    $(
                        // SAFETY: this is its type in NVIDIA's header; enums that are results
                        // are C's `int`.
                        $name: unsafe { library.function(stringify!($name)) }?,
                    )*
                })
            }
        }
    };
}
pub(super) use functions;

functions!(Functions {
    ncclGetErrorString(c_int) -> *const c_char;
    ncclGetLastError(ncclComm_t) -> *const c_char;
    ncclGetUniqueId(*mut ncclUniqueId) -> c_int;
    ncclCommInitRankConfig(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> c_int;
    ncclCommGetAsyncError(ncclComm_t, *mut c_int) -> c_int;
    ncclCommFinalize(ncclComm_t) -> c_int;
    ncclCommDestroy(ncclComm_t) -> c_int;
    ncclCommAbort(ncclComm_t) -> c_int;
    ncclAllReduce(*const c_void, *mut c_void, usize, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) -> c_int;
    ncclBroadcast(*const c_void, *mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_int;
    ncclAllGather(*const c_void, *mut c_void, usize, ncclDataType_t, ncclComm_t, cudaStream_t) -> c_int;
});

/// NCCL's version, by the one function that every version has.
pub(super) fn version(library: Opened) -> Result<u32, &'static str> {
    type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
    // SAFETY: this is its type in NVIDIA's header.
    let get: GetVersion = unsafe { library.function("ncclGetVersion") }?;
    let mut version = 0;
    // SAFETY: `version` may be written; the function never fails for such a pointer.
    unsafe { get(&raw mut version) };
    Ok(u32::try_from(version).unwrap_or(0))
}

/// Fields of `ncclConfig_t` that have no value: NCCL chooses.
const UNDEFINED: c_int = c_int::MIN;
/// `NCCL_API_MAGIC`.
const MAGIC: c_uint = 0xcafe_beef;
/// The version whose `ncclConfig_t` we fill in. Later ones accept it; `library.rs` refuses earlier.
pub(super) const BOUND: u32 = 22_900;

/// NCCL's functions.
#[derive(Debug)]
pub(super) struct Api {
    functions: Functions,
    version: u32,
}

/// A communicator. Whoever has it is the only one to call NCCL with it.
#[derive(Debug)]
pub(super) struct Comm(NonNull<ncclComm>);

impl Comm {
    fn into_raw(self) -> ncclComm_t {
        self.0.as_ptr()
    }
}

// SAFETY: NCCL wants one caller at a time, from whichever thread; a `Comm` can't be copied.
unsafe impl Send for Comm {}

/// Memory that an operation reads and writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) start: NonNull<u8>,
    pub(super) len: usize,
    pub(super) kind: DataType,
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataType {
    Bytes,
    Numbers(Element),
}

impl From<&Region> for Target {
    fn from(region: &Region) -> Self {
        let kind = DataType::Numbers(region.element());
        Self { start: region.start(), len: region.len(), kind }
    }
}

impl DataType {
    fn nccl(self) -> ncclDataType_t {
        match self {
            Self::Bytes => ncclDataType_t::ncclUint8,
            Self::Numbers(Element::Bf16) => ncclDataType_t::ncclBfloat16,
            Self::Numbers(Element::F32) => ncclDataType_t::ncclFloat32,
            Self::Numbers(Element::F64) => ncclDataType_t::ncclFloat64,
        }
    }
}

impl Api {
    /// Looks up the functions, or names the first that is missing.
    pub(super) fn open(library: Opened, version: u32) -> Result<Self, &'static str> {
        Ok(Self { functions: Functions::open(library)?, version })
    }

    pub(super) fn unique_id(&self) -> Result<UniqueId, NcclError> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: `id` may be written.
        let code = unsafe { (self.functions.ncclGetUniqueId)(&raw mut id) };
        self.accept(code, None)
            .map_err(|failure| NcclError::Call { call: "ncclGetUniqueId", failure })?;
        UniqueId::from_bytes(bytemuck::cast_slice(&id.internal))
    }

    /// Begins to form a communicator; [`progress`](Self::progress) tells when it stands. The current
    /// CUDA context says which GPU it is for.
    ///
    /// A forming that fails while the call is still under way leaves a communicator beside its code: it must be aborted like
    /// any other, so it is handed out, and `progress` tells its code again.
    pub(super) fn begin(&self, world: u32, rank: Rank, id: &UniqueId) -> Result<Comm, NcclFailure> {
        let mut config = non_blocking();
        let id = ncclUniqueId { internal: bytemuck::cast(*id.as_bytes()) };
        let (world, rank) = (world.cast_signed(), rank.0.cast_signed());
        let mut comm = null_mut();
        let init = self.functions.ncclCommInitRankConfig;
        // SAFETY: `comm` may be written; `config` is complete, and is read during the call only.
        let code = unsafe { init(&raw mut comm, world, id, rank, &raw mut config) };
        if let Some(comm) = NonNull::new(comm) {
            return Ok(Comm(comm));
        }
        self.accept(code, None)?;
        Err(self.failure(NcclCode::InternalError, None))
    }

    /// Whether everything asked of the communicator so far has been taken up; its failure, if any.
    pub(super) fn progress(&self, comm: &Comm) -> Result<bool, NcclFailure> {
        let mut state = 0;
        // SAFETY: the communicator is live, since only `destroy` and `abort` end it, and they take it.
        let code =
            unsafe { (self.functions.ncclCommGetAsyncError)(comm.0.as_ptr(), &raw mut state) };
        self.accept(code, Some(comm))?;
        self.accept(state, Some(comm))
    }

    pub(super) fn all_reduce(
        &self,
        comm: &Comm,
        stream: &Stream,
        target: Target,
        reduction: Reduction,
    ) -> Result<(), NcclFailure> {
        let operator = match reduction {
            Reduction::Sum => ncclRedOp_t::ncclSum,
            Reduction::Max => ncclRedOp_t::ncclMax,
        };
        let (at, kind) = (target.start.as_ptr().cast::<c_void>(), target.kind.nccl());
        let call = self.functions.ncclAllReduce;
        // SAFETY: the module's rule; in place is allowed.
        let code = unsafe {
            call(at.cast_const(), at, target.len, kind, operator, comm.0.as_ptr(), stream.nccl())
        };
        self.accept(code, Some(comm)).map(drop)
    }

    pub(super) fn broadcast(
        &self,
        comm: &Comm,
        stream: &Stream,
        target: Target,
        root: Rank,
    ) -> Result<(), NcclFailure> {
        let (at, kind) = (target.start.as_ptr().cast::<c_void>(), target.kind.nccl());
        let (root, call) = (root.0.cast_signed(), self.functions.ncclBroadcast);
        // SAFETY: the module's rule; in place is allowed.
        let code = unsafe {
            call(at.cast_const(), at, target.len, kind, root, comm.0.as_ptr(), stream.nccl())
        };
        self.accept(code, Some(comm)).map(drop)
    }

    /// Fills `all` with everybody's parts by rank; ours, of `len`, is in place already.
    pub(super) fn all_gather(
        &self,
        comm: &Comm,
        stream: &Stream,
        all: Target,
        (rank, len): (Rank, usize),
    ) -> Result<(), NcclFailure> {
        assert!((rank.index() + 1) * len <= all.len, "part {rank} of {len} in {}", all.len);
        // SAFETY: within `all`, as just checked.
        let mine = unsafe { all.start.add(rank.index() * len) };
        let (kind, call) = (all.kind.nccl(), self.functions.ncclAllGather);
        let (mine, all) = (mine.as_ptr().cast_const().cast(), all.start.as_ptr().cast());
        // SAFETY: the module's rule; our part lies where NCCL asks for it when in place.
        let code = unsafe { call(mine, all, len, kind, comm.0.as_ptr(), stream.nccl()) };
        self.accept(code, Some(comm)).map(drop)
    }

    /// Begins to end a communicator that all ranks end; [`progress`](Self::progress) tells when.
    pub(super) fn finalize(&self, comm: &Comm) -> Result<(), NcclFailure> {
        // SAFETY: the communicator is live, see `progress`.
        let code = unsafe { (self.functions.ncclCommFinalize)(comm.0.as_ptr()) };
        self.accept(code, Some(comm)).map(drop)
    }

    /// Frees a finalized communicator. May block.
    pub(super) fn destroy(&self, comm: Comm) -> Result<(), NcclFailure> {
        // SAFETY: the communicator is live, and nobody has it afterwards.
        let code = unsafe { (self.functions.ncclCommDestroy)(comm.into_raw()) };
        self.accept(code, None).map(drop)
    }

    /// Ends what the communicator is doing, and frees it. May block.
    pub(super) fn abort(&self, comm: Comm) -> Result<(), NcclFailure> {
        // SAFETY: the communicator is live, and nobody has it afterwards.
        let code = unsafe { (self.functions.ncclCommAbort)(comm.into_raw()) };
        self.accept(code, None).map(drop)
    }

    /// Whether a call is over (true) or goes on in the background; other codes with their words.
    fn accept(&self, code: c_int, comm: Option<&Comm>) -> Result<bool, NcclFailure> {
        let code = NcclCode::decode(code, self.version);
        if matches!(code, NcclCode::Success | NcclCode::InProgress) {
            return Ok(code == NcclCode::Success);
        }
        Err(self.failure(code, comm))
    }

    fn failure(&self, code: NcclCode, comm: Option<&Comm>) -> NcclFailure {
        let comm = comm.map_or(null_mut(), |comm| comm.0.as_ptr());
        // SAFETY: any number is allowed.
        let meaning = unsafe { (self.functions.ncclGetErrorString)(code.number()) };
        // SAFETY: the communicator is live, or NULL, which is allowed.
        let last_error = unsafe { (self.functions.ncclGetLastError)(comm) };
        NcclFailure { code, meaning: text(meaning), last_error: text(last_error) }
    }
}

/// The configuration of a communicator whose calls return at once.
fn non_blocking() -> ncclConfig_t {
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: MAGIC,
        version: BOUND,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: null(),
        splitShare: UNDEFINED,
        trafficClass: UNDEFINED,
        commName: null(),
        collnetEnable: UNDEFINED,
        CTAPolicy: UNDEFINED,
        shrinkShare: UNDEFINED,
        nvlsCTAs: UNDEFINED,
        nChannelsPerNetPeer: UNDEFINED,
        nvlinkCentricSched: UNDEFINED,
        graphUsageMode: UNDEFINED,
        numRmaCtx: UNDEFINED,
    }
}

/// A string of the library's.
pub(super) fn text(words: *const c_char) -> String {
    if words.is_null() {
        return String::new();
    }
    // SAFETY: not null, so it is a string that ends with NUL and that the library keeps.
    let words = unsafe { CStr::from_ptr(words) };
    words.to_string_lossy().trim().to_owned()
}
