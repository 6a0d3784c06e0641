//! Work on the null stream, as libtorch has it there.

#![expect(unsafe_code, reason = "calls of the fake driver; every block states its invariant")]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::thread;
use std::time::Duration;

use libloading::Library;

use crate::buffer::Buffer;

/// Queues work on the null stream that writes a one into the buffer's first number, of 32 bits, after
/// a while. Leave the buffer alone until it is done.
pub(crate) fn write_one(buffer: &mut Buffer) {
    type Launch =
        unsafe extern "C" fn(*mut c_void, extern "C" fn(*mut c_void), *mut c_void) -> c_int;
    let path = std::env::var_os("LOCKSTEP_NCCL_LIBRARY").expect("the test sets it");
    // SAFETY: the library that is loaded already.
    let library = unsafe { Library::new(path) }.expect("it is loaded");
    // SAFETY: this is its type in NVIDIA's header.
    let launch = unsafe { library.get::<Launch>("cuLaunchHostFunc") }.expect("it is there");
    let number = buffer.bytes().as_mut_ptr().cast();
    // SAFETY: NULL is the null stream; buffers are never freed.
    assert_eq!(unsafe { launch(null_mut(), write, number) }, 0);
}

extern "C" fn write(number: *mut c_void) {
    thread::park_timeout(Duration::from_millis(100));
    // SAFETY: `write_one` passes the start of a buffer of such numbers.
    unsafe { number.cast::<f32>().write(1.0) };
}
