//! The fence around the CUDA driver: streams, events and staging memory.
//!
//! libtorch computes on the null stream of the GPU's primary context, which is shared with everybody
//! in the process. Operations run on a stream of their own that does not wait for the null stream by
//! itself; events order the two. Nothing here waits: events are asked whether they have come.

#![expect(unsafe_code, reason = "calls of the CUDA driver; every block states its invariant")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use cudarc::driver::sys::{
    CUcontext, CUctx_st, CUdevice, CUdeviceptr, CUevent, CUevent_flags_enum, CUevent_st, CUstream,
    CUstream_flags_enum, CUstream_st,
};
use cudarc::nccl::sys::cudaStream_t;

use super::NcclError;
use super::sys::{Opened, functions, text};

functions!(Functions {
    cuInit(c_uint) -> c_int;
    cuGetErrorString(c_int, *mut *const c_char) -> c_int;
    cuDeviceGet(*mut CUdevice, c_int) -> c_int;
    cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice) -> c_int;
    cuDevicePrimaryCtxRelease_v2(CUdevice) -> c_int;
    cuCtxSetCurrent(CUcontext) -> c_int;
    cuStreamCreate(*mut CUstream, c_uint) -> c_int;
    cuStreamWaitEvent(CUstream, CUevent, c_uint) -> c_int;
    cuStreamDestroy_v2(CUstream) -> c_int;
    cuEventCreate(*mut CUevent, c_uint) -> c_int;
    cuEventRecord(CUevent, CUstream) -> c_int;
    cuEventQuery(CUevent) -> c_int;
    cuEventDestroy_v2(CUevent) -> c_int;
    cuMemAlloc_v2(*mut CUdeviceptr, usize) -> c_int;
    cuMemFree_v2(CUdeviceptr) -> c_int;
    cuMemAllocHost_v2(*mut *mut c_void, usize) -> c_int;
    cuMemFreeHost(*mut c_void) -> c_int;
    cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream) -> c_int;
    cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream) -> c_int;
});

/// `CUDA_SUCCESS`.
const SUCCESS: c_int = 0;
/// `CUDA_ERROR_NOT_READY`: an event that has not come.
const NOT_READY: c_int = 600;

/// A call that the driver refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CudaFailure {
    pub(super) call: &'static str,
    pub(super) reason: String,
}

/// The driver's functions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Driver {
    functions: Functions,
}

/// Calls a driver's function: `call!(driver, cuInit(0))`. Expands to an unsafe call.
macro_rules! call {
    ($driver:expr, $name:ident($($argument:expr),*)) => {
        $driver.check(stringify!($name), ($driver.functions.$name)($($argument),*))
    };
}

impl Driver {
    /// Looks up the functions; those of `library`, if given, else the driver's.
    pub(super) fn open(library: Option<Opened>) -> Result<Self, NcclError> {
        let driver = library.map_or_else(|| Opened::new(Path::new("libcuda.so.1")), Ok);
        let driver = driver.map_err(|reason| NcclError::NoDriver { reason })?;
        let functions = Functions::open(driver)
            .map_err(|symbol| NcclError::NoDriver { reason: format!("it lacks {symbol}") })?;
        Ok(Self { functions })
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), CudaFailure> {
        if code == SUCCESS {
            return Ok(());
        }
        let mut words = null();
        // SAFETY: any number is allowed, and `words` may be written; it stays NULL for unknown ones.
        unsafe { (self.functions.cuGetErrorString)(code, &raw mut words) };
        Err(CudaFailure { call, reason: format!("error {code} ({})", text(words)) })
    }
}

/// A GPU's primary context, the one that libtorch uses.
#[derive(Debug)]
pub(super) struct Device {
    driver: Driver,
    index: CUdevice,
    context: NonNull<CUctx_st>,
}

// SAFETY: contexts may be used from any thread, and by several.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Opens GPU number `ordinal`, and makes it this thread's.
    pub(super) fn open(driver: Driver, ordinal: u32) -> Result<Arc<Self>, CudaFailure> {
        let (mut index, mut context) = (0, null_mut());
        // SAFETY: no arguments to get wrong; doing so twice is harmless.
        unsafe { call!(driver, cuInit(0)) }?;
        // SAFETY: `index` may be written; any number is allowed.
        unsafe { call!(driver, cuDeviceGet(&raw mut index, ordinal.cast_signed())) }?;
        // SAFETY: `context` may be written; the device is there.
        unsafe { call!(driver, cuDevicePrimaryCtxRetain(&raw mut context, index)) }?;
        let context = NonNull::new(context).expect("a driver that succeeds gives a context");
        let device = Arc::new(Self { driver, index, context });
        device.enter()?;
        Ok(device)
    }

    /// Makes it this thread's GPU: for NCCL, and for the null stream.
    pub(super) fn enter(&self) -> Result<(), CudaFailure> {
        // SAFETY: the context is retained while `self` lives.
        unsafe { call!(self.driver, cuCtxSetCurrent(self.context.as_ptr())) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained in `open`, once. libtorch has retained it by itself.
        let released = unsafe { call!(self.driver, cuDevicePrimaryCtxRelease_v2(self.index)) };
        note(released);
    }
}

/// A queue of work on the GPU.
#[derive(Debug)]
pub(super) struct Stream {
    device: Arc<Device>,
    stream: NonNull<CUstream_st>,
}

// SAFETY: streams may be used from any thread.
unsafe impl Send for Stream {}

impl Stream {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, CudaFailure> {
        let (mut stream, flags) =
            (null_mut(), CUstream_flags_enum::CU_STREAM_NON_BLOCKING as c_uint);
        // SAFETY: `stream` may be written.
        unsafe { call!(device.driver, cuStreamCreate(&raw mut stream, flags)) }?;
        let stream = NonNull::new(stream).expect("a driver that succeeds gives a stream");
        Ok(Self { device: Arc::clone(device), stream })
    }

    /// What is queued here from now on runs after `event`.
    pub(super) fn wait(&self, event: &Event) -> Result<(), CudaFailure> {
        let (stream, event) = (self.stream.as_ptr(), event.event.as_ptr());
        // SAFETY: both live; the driver keeps what it needs of the event.
        unsafe { call!(self.device.driver, cuStreamWaitEvent(stream, event, 0)) }
    }

    /// As NCCL knows it: the runtime's streams are the driver's.
    pub(super) fn nccl(&self) -> cudaStream_t {
        self.stream.as_ptr().cast()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let stream = self.stream.as_ptr();
        // SAFETY: it is live, and nobody has it afterwards; the driver lets queued work end.
        note(unsafe { call!(self.device.driver, cuStreamDestroy_v2(stream)) });
    }
}

/// A point in a stream, that comes when the work before it is over.
#[derive(Debug)]
pub(super) struct Event {
    device: Arc<Device>,
    event: NonNull<CUevent_st>,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, CudaFailure> {
        let (mut event, flags) =
            (null_mut(), CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as c_uint);
        // SAFETY: `event` may be written.
        unsafe { call!(device.driver, cuEventCreate(&raw mut event, flags)) }?;
        let event = NonNull::new(event).expect("a driver that succeeds gives an event");
        Ok(Self { device: Arc::clone(device), event })
    }

    /// Puts it behind what is in `stream` now; in the null stream, if none is given, of the GPU that
    /// is this thread's.
    pub(super) fn record(&self, stream: Option<&Stream>) -> Result<(), CudaFailure> {
        let stream = stream.map_or(null_mut(), |stream| stream.stream.as_ptr());
        // SAFETY: both live; NULL is the null stream.
        unsafe { call!(self.device.driver, cuEventRecord(self.event.as_ptr(), stream)) }
    }

    /// What is queued from now on in the null stream of this thread's GPU runs after it.
    pub(super) fn hold_null_stream(&self) -> Result<(), CudaFailure> {
        // SAFETY: it lives, and the driver keeps what it needs of it; NULL is the null stream.
        unsafe { call!(self.device.driver, cuStreamWaitEvent(null_mut(), self.event.as_ptr(), 0)) }
    }

    /// Whether it has come. An error of the work before it shows here.
    pub(super) fn has_come(&self) -> Result<bool, CudaFailure> {
        // SAFETY: the event lives.
        let code = unsafe { (self.device.driver.functions.cuEventQuery)(self.event.as_ptr()) };
        if code == NOT_READY {
            return Ok(false);
        }
        self.device.driver.check("cuEventQuery", code).map(|()| true)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let event = self.event.as_ptr();
        // SAFETY: it is live, and nobody has it afterwards; the driver lets a pending one come.
        note(unsafe { call!(self.device.driver, cuEventDestroy_v2(event)) });
    }
}

/// Memory on the GPU with its mirror in pinned host memory, for numbers that live on the host.
#[derive(Debug)]
pub(super) struct Staging {
    device: Arc<Device>,
    host: NonNull<u8>,
    gpu: CUdeviceptr,
    len: usize,
}

// SAFETY: it owns its memory, which may be used from any thread.
unsafe impl Send for Staging {}

impl Staging {
    pub(super) fn new(device: &Arc<Device>, len: usize) -> Result<Self, CudaFailure> {
        let mut host = null_mut();
        // SAFETY: `host` may be written.
        unsafe { call!(device.driver, cuMemAllocHost_v2(&raw mut host, len)) }?;
        let host = NonNull::new(host).expect("a driver that succeeds gives memory").cast::<u8>();
        // SAFETY: just allocated with this length; from here on it is never uninitialised.
        unsafe { host.write_bytes(0, len) };
        let mut staging = Self { device: Arc::clone(device), host, gpu: 0, len };
        // SAFETY: `gpu` may be written.
        unsafe { call!(device.driver, cuMemAlloc_v2(&raw mut staging.gpu, len)) }?;
        Ok(staging)
    }

    /// The mirror. Only between operations: copies to and from it must have come.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: ours, initialised, `len` long; `collective.rs` asks for it only while no copy of
        // this staging is under way.
        unsafe { std::slice::from_raw_parts_mut(self.host.as_ptr(), self.len) }
    }

    /// The memory on the GPU.
    pub(super) fn start(&self) -> NonNull<u8> {
        let address = usize::try_from(self.gpu).expect("addresses have 64 bits");
        NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("`new` allocated it")
    }

    /// Queues a copy of the mirror's first `len` bytes to the GPU.
    pub(super) fn upload(&self, len: usize, stream: &Stream) -> Result<(), CudaFailure> {
        assert!(len <= self.len, "{len} bytes of {}", self.len);
        let (from, stream) = (self.host.as_ptr().cast_const().cast(), stream.stream.as_ptr());
        // SAFETY: both lie within our allocations, which outlive the copy: see `sys.rs`.
        unsafe { call!(self.device.driver, cuMemcpyHtoDAsync_v2(self.gpu, from, len, stream)) }
    }

    /// Queues a copy of the GPU's first `len` bytes to the mirror.
    pub(super) fn download(&self, len: usize, stream: &Stream) -> Result<(), CudaFailure> {
        assert!(len <= self.len, "{len} bytes of {}", self.len);
        let (to, stream) = (self.host.as_ptr().cast(), stream.stream.as_ptr());
        // SAFETY: as above.
        unsafe { call!(self.device.driver, cuMemcpyDtoHAsync_v2(to, self.gpu, len, stream)) }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.gpu != 0 {
            // SAFETY: allocated in `new`; waits for queued work, so nothing uses it afterwards.
            note(unsafe { call!(self.device.driver, cuMemFree_v2(self.gpu)) });
        }
        // SAFETY: allocated in `new`, and freed once.
        note(unsafe { call!(self.device.driver, cuMemFreeHost(self.host.as_ptr().cast())) });
    }
}

/// What can't be reported otherwise.
fn note(freed: Result<(), CudaFailure>) {
    if let Err(CudaFailure { call, reason }) = freed {
        tracing::warn!(call, reason, "the CUDA driver refused to free something");
    }
}
