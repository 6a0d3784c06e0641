//! NCCL's functions. Codes are integers, as in C.

#![expect(unsafe_code, reason = "C functions that get pointers; their caller vouches for them")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use cudarc::nccl::sys::{cudaStream_t, ncclConfig_t, ncclUniqueId};

use crate::comm::{Call, Comm, INVALID_ARGUMENT, SUCCESS, SYSTEM_ERROR, last_error, note};
use crate::driver::{has_context, stream};
use crate::meeting::{self, Task};
use crate::memory::Span;
use crate::reduce::{Number, Operator};
use crate::script::{self, Fault};

/// What this library says that it is, unless the script has another idea: 2.29.7.
const VERSION: c_int = 22_907;
/// `ncclUnhandledCudaError`.
const CUDA_ERROR: c_int = 1;
/// `NCCL_API_MAGIC`.
const MAGIC: c_uint = 0xcafe_beef;

/// A communicator as programs hold it. Never freed, so that one that ended is an error only.
type Handle = *const Comm;

/// Says that memory of the host is welcome, and that this library is its own CUDA driver.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lockstep_nccl_works_on_host_memory() {}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ncclGetVersion(version: *mut c_int) -> c_int {
    let ordered = script::anywhere(|fault| match fault {
        Fault::Version(version) => Some(*version),
        _ => None,
    });
    // SAFETY: the caller's.
    unsafe { version.write(ordered.unwrap_or(VERSION)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclGetErrorString(code: c_int) -> *const c_char {
    let meaning = match code {
        0 => c"no error",
        1 => c"unhandled cuda error",
        2 => c"unhandled system error",
        3 => c"internal error",
        4 => c"invalid argument",
        5 => c"invalid usage",
        6 => c"remote process exited or there was a network error",
        7 => c"NCCL operation in progress",
        _ => c"unknown result code",
    };
    meaning.as_ptr()
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclGetLastError(_: Handle) -> *const c_char {
    // It lives for ever, as callers expect; there are few.
    CString::new(last_error()).expect("no NUL in it").into_raw()
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ncclGetUniqueId(id: *mut ncclUniqueId) -> c_int {
    let ordered = script::anywhere(|fault| match fault {
        Fault::NoId(code) => Some(*code),
        _ => None,
    });
    if let Some(code) = ordered {
        note("no id, as ordered");
        return code;
    }
    match meeting::open() {
        Ok(bytes) => {
            let made = ncclUniqueId { internal: bytes.map(|byte| c_char::from_ne_bytes([byte])) };
            // SAFETY: the caller's.
            unsafe { id.write(made) };
            SUCCESS
        }
        Err(error) => {
            note(&error.to_string());
            SYSTEM_ERROR
        }
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ncclCommInitRankConfig(
    comm: *mut Handle,
    world: c_int,
    id: ncclUniqueId,
    rank: c_int,
    config: *mut ncclConfig_t,
) -> c_int {
    // SAFETY: the caller's.
    let config = unsafe { config.read() };
    let blocking = config.blocking != 0;
    if config.size != size_of::<ncclConfig_t>() || config.magic != MAGIC || blocking {
        note("only complete configurations, that ask not to block");
        return INVALID_ARGUMENT;
    }
    if !has_context() {
        note("no CUDA context is current");
        return CUDA_ERROR;
    }
    let (rank, world) = (rank.cast_unsigned(), world.cast_unsigned());
    match Comm::begin(id.internal.map(|byte| byte.to_ne_bytes()[0]), rank, world) {
        Ok(begun) => {
            // SAFETY: the caller's.
            unsafe { comm.write(Arc::into_raw(Arc::clone(&begun))) };
            // As the real one: where forming has failed by now, there is a code *and* a communicator.
            begun.async_error()
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ncclCommGetAsyncError(comm: Handle, code: *mut c_int) -> c_int {
    let now = live(comm).async_error();
    // SAFETY: the caller's.
    unsafe { code.write(now) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclCommFinalize(comm: Handle) -> c_int {
    live(comm).finalize()
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclCommDestroy(comm: Handle) -> c_int {
    live(comm).end()
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclCommAbort(comm: Handle) -> c_int {
    live(comm).end()
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclAllReduce(
    from: *const c_void,
    to: *mut c_void,
    count: usize,
    kind: c_int,
    operator: c_int,
    comm: Handle,
    on: cudaStream_t,
) -> c_int {
    let (number, size) = match kind {
        7 => (Number::F32, 4),
        8 => (Number::F64, 8),
        9 => (Number::Bf16, 2),
        _ => return INVALID_ARGUMENT,
    };
    let operator = match operator {
        0 => Operator::Sum,
        2 => Operator::Max,
        _ => return INVALID_ARGUMENT,
    };
    call(comm, on, Task::AllReduce(number, operator), from, (to, count * size))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclBroadcast(
    from: *const c_void,
    to: *mut c_void,
    count: usize,
    kind: c_int,
    root: c_int,
    comm: Handle,
    on: cudaStream_t,
) -> c_int {
    let Some(size) = size(kind) else { return INVALID_ARGUMENT };
    let root = root.cast_unsigned();
    call(comm, on, Task::Broadcast { root }, from, (to, count * size))
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn ncclAllGather(
    from: *const c_void,
    to: *mut c_void,
    count: usize,
    kind: c_int,
    comm: Handle,
    on: cudaStream_t,
) -> c_int {
    let Some(size) = size(kind) else { return INVALID_ARGUMENT };
    let len = count * size * live(comm).world();
    call(comm, on, Task::AllGather, from, (to, len))
}

fn call(
    comm: Handle,
    on: cudaStream_t,
    task: Task,
    from: *const c_void,
    (to, len): (*mut c_void, usize),
) -> c_int {
    let comm = live(comm);
    let from = Span::new(from.expose_provenance(), comm.sends(task, len));
    let to = Span::new(to.expose_provenance(), len);
    comm.call(Call { task, from, to }, stream(on.cast()))
}

/// Bytes of one element.
fn size(kind: c_int) -> Option<usize> {
    match kind {
        1 => Some(1),
        7 => Some(4),
        8 => Some(8),
        9 => Some(2),
        _ => None,
    }
}

fn live(comm: Handle) -> Arc<Comm> {
    assert!(!comm.is_null(), "fake NCCL: a communicator that is NULL");
    // SAFETY: it came from `Arc::into_raw`, and that count is never given back.
    unsafe { Arc::increment_strong_count(comm) };
    // SAFETY: one count was just added for this.
    unsafe { Arc::from_raw(comm) }
}
