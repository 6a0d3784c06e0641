//! The fence around tensor memory and the ATen calls that tch lacks. One of the few modules with `unsafe`.
//!
//! Five things pass through here: gradients of convolution and batch norm (`fence.cpp`), a host tensor seen as a
//! slice (for the loops of `kernels/host/`, digests and checkpoints), a stretch of a permanent buffer lent
//! to a collective, copies to a GPU beside its kernels, and loops on ATen's threads.
//!
//! Rule for the slices: a tensor that is written through [`host_mut`] is either fresh or one of the
//! permanent buffers of `store.rs`, whose only owner holds it by `&mut`; no reader of the same memory is
//! alive meanwhile.

#![expect(
    unsafe_code,
    reason = "raw tensor memory and one foreign function; every block states its invariant"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;

use half::bf16;
use lockstep_collective::{Element, Region};
use tch::{Device, Kind, Tensor};

/// An element type that host tensors lend as slices.
pub trait Scalar: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The tensor library's name for it.
    const KIND: Kind;
}

impl Scalar for f32 {
    const KIND: Kind = Kind::Float;
}

impl Scalar for f64 {
    const KIND: Kind = Kind::Double;
}

impl Scalar for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for half::bf16 {}
}

/// The elements of a dense host tensor, in memory order (channels-last tensors: N, H, W, C).
///
/// # Panics
///
/// If the tensor is not on the host, has another element type, or has gaps.
pub fn host<T: Scalar>(tensor: &Tensor) -> &[T] {
    let (start, len) = dense::<T>(tensor);
    // SAFETY: `dense` checked that `len` initialised elements of T lie there; the tensor keeps them alive
    // for the borrow, and the module's rule keeps writers away.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
}

/// As [`host`], to write. The caller keeps the module's rule.
pub(crate) fn host_mut<T: Scalar>(tensor: &mut Tensor) -> &mut [T] {
    let (start, len) = dense::<T>(tensor);
    // SAFETY: as in `host`; `&mut` and the module's rule make this the only live view of the memory.
    unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
}

/// The bytes of a dense host tensor of any element type.
///
/// # Panics
///
/// If the tensor is not on the host, or has gaps.
pub fn host_bytes(tensor: &Tensor) -> &[u8] {
    assert_eq!(tensor.device(), Device::Cpu, "bytes are read on the host");
    assert!(is_dense(tensor), "bytes are read from dense tensors");
    let len = tensor.numel() * tensor.kind().elt_size_in_bytes();
    let start = NonNull::new(tensor.data_ptr().cast::<u8>()).unwrap_or(NonNull::dangling());
    // SAFETY: the tensor is dense, on the host and `len` bytes long; it outlives the borrow.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
}

/// Lends `len` elements of a flat permanent buffer, from element `first`, to a collective.
///
/// The region must be waited for before the elements are used again; the buffers of `store.rs` live as
/// long as the model, which outlives its communicators' operations.
pub(crate) fn region(flat: &mut Tensor, first: usize, len: usize) -> Region {
    assert!(
        first + len <= flat.numel(),
        "region {first}+{len} is outside of {} elements",
        flat.numel()
    );
    let element = if flat.kind() == Kind::Double {
        Element::F64
    } else if flat.kind() == Kind::BFloat16 {
        Element::Bf16
    } else {
        assert_eq!(flat.kind(), Kind::Float, "permanent buffers are f64, f32 or bf16");
        Element::F32
    };
    let offset = first * flat.kind().elt_size_in_bytes();
    let base = flat.data_ptr().cast::<u8>();
    // SAFETY: `offset` is inside of the allocation, as asserted above.
    let start = unsafe { base.add(offset) };
    let start = NonNull::new(start).expect("a permanent buffer is allocated");
    // SAFETY: `len` initialised elements lie there, in one allocation, and stay there; the caller touches
    // them only after the operation was waited for.
    unsafe { Region::from_raw(start, len, element) }
}

/// Gradients of a bias-free 2-d convolution: of the input if `want_input`, and of the weight.
///
/// ATen: `convolution_backward`.
pub(crate) fn convolution_backward(
    grad_output: &Tensor,
    input: &Tensor,
    weight: &Tensor,
    (stride, padding): (i64, i64),
    want_input: bool,
) -> (Option<Tensor>, Tensor) {
    let _span = tracing::trace_span!("convolution").entered();
    let mut grad_input = std::ptr::null_mut();
    let mut grad_weight = std::ptr::null_mut();
    let mut error: [c_char; 512] = [0; 512];
    // SAFETY: the three tensors are alive for the call, the outputs are valid for one pointer each, and
    // the callee writes at most `error.len()` bytes of a terminated message.
    let failed = unsafe {
        lockstep_convolution_backward(
            grad_output.as_ptr().cast(),
            input.as_ptr().cast(),
            weight.as_ptr().cast(),
            stride,
            padding,
            c_int::from(want_input),
            &raw mut grad_input,
            &raw mut grad_weight,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    check("convolution_backward, with shapes that forward took", failed, &error);
    (adopt(grad_input), adopt(grad_weight).expect("the weight's gradient is always made"))
}

/// Σg and Σg·x̂ of every channel, where `x̂ = (x − mean)·inv_std`; both moments are f32 where `x` is bf16.
///
/// ATen: `native_batch_norm_backward`, without the gradient of the input.
pub(crate) fn batch_norm_gradient_sums(
    g: &Tensor,
    x: &Tensor,
    [mean, inv_std]: [&Tensor; 2],
) -> [Tensor; 2] {
    let mut sums = [std::ptr::null_mut(); 2];
    let [plain, with_x_hat] = &mut sums;
    let mut error: [c_char; 512] = [0; 512];
    // SAFETY: as in `convolution_backward`.
    let failed = unsafe {
        lockstep_batch_norm_gradient_sums(
            g.as_ptr().cast(),
            x.as_ptr().cast(),
            mean.as_ptr().cast(),
            inv_std.as_ptr().cast(),
            plain,
            with_x_hat,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    check("native_batch_norm_backward, with shapes that forward took", failed, &error);
    sums.map(|sum| adopt(sum).expect("both sums are asked for"))
}

/// A copy of `x` on `device`, or the tensor itself where it is there. The copy to a GPU does not wait for what is queued
/// there, and is over when this returns.
pub(crate) fn on_device(x: &Tensor, device: Device) -> Tensor {
    let Device::Cuda(index) = device else { return x.to_device(device) };
    let index = i32::try_from(index).expect("no machine has 2^31 GPUs");
    let mut copy = std::ptr::null_mut();
    let mut error: [c_char; 512] = [0; 512];
    // SAFETY: as in `convolution_backward`.
    let failed = unsafe {
        let x = x.as_ptr().cast();
        lockstep_copy_to_gpu(x, index, &raw mut copy, error.as_mut_ptr(), error.len())
    };
    check("a copy to the GPU", failed, &error);
    adopt(copy).expect("the copy was made")
}

/// Panics if a call of the fence failed: that is our bug, or the device is broken.
fn check(call: &str, failed: i32, error: &[c_char; 512]) {
    if failed != 0 {
        // SAFETY: on failure the callee left a terminated string in `error`.
        let message = unsafe { CStr::from_ptr(error.as_ptr()) };
        panic!("{call}: {}", message.to_string_lossy());
    }
}

// SAFETY: the signature is that of `fence.cpp`, compiled and linked by `build.rs`.
unsafe extern "C" {
    fn lockstep_convolution_backward(
        grad_output: *const c_void,
        input: *const c_void,
        weight: *const c_void,
        stride: i64,
        padding: i64,
        want_input: i32,
        grad_input: *mut *mut c_void,
        grad_weight: *mut *mut c_void,
        error: *mut c_char,
        error_len: usize,
    ) -> i32;

    fn lockstep_batch_norm_gradient_sums(
        grad_output: *const c_void,
        input: *const c_void,
        mean: *const c_void,
        inv_std: *const c_void,
        plain: *mut *mut c_void,
        with_x_hat: *mut *mut c_void,
        error: *mut c_char,
        error_len: usize,
    ) -> i32;

    fn lockstep_copy_to_gpu(
        host: *const c_void,
        index: i32,
        copy: *mut *mut c_void,
        error: *mut c_char,
        error_len: usize,
    ) -> i32;

    fn lockstep_parallel_for(
        count: i64,
        body: extern "C" fn(*const c_void, i64),
        context: *const c_void,
    );
}

/// `body(index)` for every index below `count`, on ATen's threads, in order of the index.
pub(crate) fn parallel_map<R: Send>(count: usize, body: impl Fn(usize) -> R + Sync) -> Vec<R> {
    parallel_chunks(&mut vec![(); count], 1, |index, _| body(index))
}

/// `body(index, chunk)` for every `len` elements of `data` (the last chunk may be shorter), on ATen's
/// threads; what it returns, in order.
pub(crate) fn parallel_chunks<T: Send, R: Send>(
    data: &mut [T],
    len: usize,
    body: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let chunks: Vec<_> = data.chunks_mut(len).map(|chunk| Mutex::new((chunk, None))).collect();
    parallel_for(chunks.len(), &|index| {
        let (chunk, result) = &mut *chunks[index].lock().expect("each chunk is visited once");
        *result = Some(body(index, chunk));
    });
    let result = |chunk: Mutex<(_, Option<R>)>| chunk.into_inner().expect("no thread panicked").1;
    chunks.into_iter().map(|chunk| result(chunk).expect("each chunk was visited")).collect()
}

/// A loop body behind one thin pointer.
type Body<'a> = &'a (dyn Fn(usize) + Sync);

fn parallel_for(count: usize, body: Body<'_>) {
    extern "C" fn call(context: *const c_void, index: i64) {
        // SAFETY: `context` is the `&body` below, which outlives the call of the fence.
        let body = unsafe { &*context.cast::<Body<'_>>() };
        body(usize::try_from(index).expect("indices count from 0"));
    }
    let count = i64::try_from(count).expect("no slice has 2^63 chunks");
    // SAFETY: the callee calls `call` with this context until it returns, never after; `Sync` lets it do so
    // from several threads; a panic in `body` ends the process at the border of `extern "C"`.
    unsafe { lockstep_parallel_for(count, call, (&raw const body).cast()) }
}

/// Takes over a tensor that the fence allocated.
fn adopt(raw: *mut c_void) -> Option<Tensor> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: not null, allocated by the fence with `new`, and handed over exactly once.
    Some(unsafe { Tensor::from_ptr(raw.cast()) })
}

fn dense<T: Scalar>(tensor: &Tensor) -> (NonNull<T>, usize) {
    assert_eq!(tensor.device(), Device::Cpu, "slices are of host tensors");
    assert_eq!(tensor.kind(), T::KIND, "element type of the slice");
    assert!(is_dense(tensor), "slices are of dense tensors, not of strides {:?}", tensor.stride());
    let start = NonNull::new(tensor.data_ptr().cast::<T>()).unwrap_or(NonNull::dangling());
    (start, tensor.numel())
}

/// Contiguous as it is, or as channels-last, or as a channels-last weight: no gaps either way.
fn is_dense(tensor: &Tensor) -> bool {
    tensor.is_contiguous() || (tensor.dim() == 4 && tensor.permute([0, 2, 3, 1]).is_contiguous())
}
