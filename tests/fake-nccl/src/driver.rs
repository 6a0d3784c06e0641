//! The CUDA driver's functions. "Device memory" is host memory; there is one device.

#![expect(unsafe_code, reason = "C functions that get pointers; their caller vouches for them")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::without_provenance_mut;
use std::sync::{Arc, Condvar, Mutex};

use crate::memory::Span;
use crate::script::{self, Fault};
use crate::stream::{Event, Stream};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const NO_DEVICE: c_int = 101;
const INVALID_CONTEXT: c_int = 201;
const NOT_READY: c_int = 600;

thread_local! {
    /// Whether a context is current on this thread.
    static CONTEXT: Cell<bool> = const { Cell::new(false) };
}

/// Allocations, by address.
static MEMORY: Mutex<BTreeMap<usize, Box<[u64]>>> = Mutex::new(BTreeMap::new());

/// Operations of NCCL's under way.
static BUSY: Mutex<usize> = Mutex::new(0);
static IDLE: Condvar = Condvar::new();
/// Locked while memory is freed.
static FREEING: Mutex<()> = Mutex::new(());

/// Lasts as long as an operation of NCCL's.
pub(crate) struct Busy;

impl Busy {
    pub(crate) fn new() -> Self {
        *BUSY.lock().unwrap() += 1;
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *BUSY.lock().unwrap() -= 1;
        IDLE.notify_all();
    }
}

/// What the end of a communicator does last: it waits until no operation of *any* is under way, and holds up
/// everybody's calls meanwhile, as the driver may.
pub(crate) fn free_memory() {
    let _held_up = FREEING.lock().unwrap();
    drop(IDLE.wait_while(BUSY.lock().unwrap(), |busy| *busy > 0).unwrap());
}

fn held_up() {
    drop(FREEING.lock().unwrap());
}

pub(crate) fn has_context() -> bool {
    CONTEXT.get()
}

/// A stream by its handle; NULL is the null stream.
pub(crate) fn stream(handle: *mut c_void) -> Stream {
    if handle.is_null() {
        return Stream::null();
    }
    // SAFETY: `cuStreamCreate` made it, and streams are never freed.
    unsafe { &*handle.cast_const().cast::<Stream>() }.clone()
}

fn event(handle: *const Event) -> Arc<Event> {
    // SAFETY: it came from `Arc::into_raw`, and that count is never given back.
    unsafe { Arc::increment_strong_count(handle) };
    // SAFETY: one count was just added for this.
    unsafe { Arc::from_raw(handle) }
}

/// The code that the script wants of a function.
fn ordered(function: &str) -> Option<c_int> {
    script::anywhere(|fault| match fault {
        Fault::Driver(name, code) if name == function => Some(*code),
        _ => None,
    })
}

/// Returns from the function with what the script wants, if it does.
macro_rules! unless_ordered {
    ($function:ident) => {
        if let Some(code) = ordered(stringify!($function)) {
            return code;
        }
    };
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuInit(_: c_uint) -> c_int {
    unless_ordered!(cuInit);
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGetErrorString(code: c_int, words: *mut *const c_char) -> c_int {
    let text = CString::new(format!("fake error {code}")).expect("no NUL in it");
    // SAFETY: the caller's. It lives for ever, as callers expect; there are few.
    unsafe { words.write(text.into_raw()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    if ordinal != 0 {
        return NO_DEVICE;
    }
    // SAFETY: the caller's.
    unsafe { device.write(0) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuDevicePrimaryCtxRetain(
    context: *mut *mut c_void,
    _: c_int,
) -> c_int {
    unless_ordered!(cuDevicePrimaryCtxRetain);
    // SAFETY: the caller's. The one context is a number that nobody follows.
    unsafe { context.write(without_provenance_mut(1)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuDevicePrimaryCtxRelease_v2(_: c_int) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    held_up();
    CONTEXT.set(!context.is_null());
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuStreamCreate(made: *mut *mut Stream, _: c_uint) -> c_int {
    unless_ordered!(cuStreamCreate);
    // SAFETY: the caller's.
    unsafe { made.write(Box::into_raw(Box::new(Stream::new()))) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuStreamDestroy_v2(_: *mut c_void) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuStreamWaitEvent(
    on: *mut c_void,
    awaited: *const Event,
    _: c_uint,
) -> c_int {
    event(awaited).hold_up(&stream(on));
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuEventCreate(made: *mut *const Event, _: c_uint) -> c_int {
    // SAFETY: the caller's.
    unsafe { made.write(Arc::into_raw(Arc::default())) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuEventRecord(recorded: *const Event, on: *mut c_void) -> c_int {
    held_up();
    unless_ordered!(cuEventRecord);
    if on.is_null() && !has_context() {
        return INVALID_CONTEXT;
    }
    event(recorded).record(&stream(on));
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuEventQuery(asked: *const Event) -> c_int {
    held_up();
    unless_ordered!(cuEventQuery);
    if event(asked).has_come() { SUCCESS } else { NOT_READY }
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuEventDestroy_v2(_: *const Event) -> c_int {
    held_up();
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemAlloc_v2(made: *mut c_ulonglong, len: usize) -> c_int {
    unless_ordered!(cuMemAlloc_v2);
    // SAFETY: the caller's.
    unsafe { made.write(allocate(len) as c_ulonglong) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuMemFree_v2(address: c_ulonglong) -> c_int {
    release(usize::try_from(address).expect("64 bits"))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuMemAllocHost_v2(made: *mut *mut c_void, len: usize) -> c_int {
    // SAFETY: the caller's.
    unsafe { made.write(std::ptr::with_exposed_provenance_mut(allocate(len))) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuMemFreeHost(address: *mut c_void) -> c_int {
    release(address.expose_provenance())
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuMemcpyHtoDAsync_v2(
    to: c_ulonglong,
    from: *const c_void,
    len: usize,
    on: *mut c_void,
) -> c_int {
    copy(usize::try_from(to).expect("64 bits"), from.expose_provenance(), len, on)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: c_ulonglong,
    len: usize,
    on: *mut c_void,
) -> c_int {
    copy(to.expose_provenance(), usize::try_from(from).expect("64 bits"), len, on)
}

/// Not used by the production code: tests put work of their own into a stream.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuLaunchHostFunc(
    on: *mut c_void,
    work: extern "C" fn(*mut c_void),
    data: *mut c_void,
) -> c_int {
    let data = data.expose_provenance();
    stream(on).push(move || work(std::ptr::with_exposed_provenance_mut(data)));
    SUCCESS
}

fn copy(to: usize, from: usize, len: usize, on: *mut c_void) -> c_int {
    stream(on).push(move || Span::new(to, len).write(&Span::new(from, len).read()));
    SUCCESS
}

fn allocate(len: usize) -> usize {
    let mut memory = vec![0_u64; len.div_ceil(8)].into_boxed_slice();
    let address = memory.as_mut_ptr().expose_provenance();
    MEMORY.lock().unwrap().insert(address, memory);
    address
}

fn release(address: usize) -> c_int {
    if MEMORY.lock().unwrap().remove(&address).is_some() { SUCCESS } else { INVALID_VALUE }
}
