//! Memory that is reduced, as the collectives see it. One of the few modules with `unsafe`.
//!
//! A [`Region`] is a stretch of a permanent buffer that the engine lends to the communication
//! thread; [`Values`] is an ordinary borrow, for calls that block.

#![expect(unsafe_code, reason = "raw buffer pointers; every block states its invariant")]

use std::ptr::NonNull;
use std::slice::from_raw_parts_mut;

use half::bf16;

/// What a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 16-bit floats with the exponents of 32-bit ones. A sum of several is rounded at every addition.
    Bf16,
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
}

impl Element {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bf16 => size_of::<bf16>(),
            Self::F32 => size_of::<f32>(),
            Self::F64 => size_of::<f64>(),
        }
    }
}

/// A stretch of a permanent buffer, lent to a collective until its operation is over.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    element: Element,
}

// SAFETY: `from_raw` was promised that nobody else touches the memory while the region
// or its operation lives, so it may be used from whichever thread holds the region.
unsafe impl Send for Region {}

impl Region {
    /// Lends `len` elements at `start`.
    ///
    /// # Safety
    ///
    /// * `start` is aligned for `element` and points to `len` initialised elements in one
    ///   allocation, in host memory for the host backend, in memory of the communicator's GPU for NCCL;
    /// * until [`wait`](crate::Collective::wait) has returned for the operation that takes this
    ///   region without an error, or all communicators of its world (or this region, if never used)
    ///   have been dropped, the memory stays allocated and nothing else reads or writes it; after
    ///   [`Undrained`](crate::CollectiveError::Undrained), until the process ends.
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize, element: Element) -> Self {
        Self { start, len, element }
    }

    /// Elements in the region.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it holds.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Where it begins, for the GPU.
    #[cfg(feature = "nccl")]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its size.
    #[cfg(feature = "nccl")]
    pub(crate) fn bytes(&self) -> usize {
        self.len * self.element.size()
    }

    /// The same memory as the host backend works on it.
    pub(crate) fn values(&mut self) -> Values<'_> {
        match self.element {
            Element::Bf16 => {
                let start = self.start.cast::<bf16>().as_ptr();
                // SAFETY: `from_raw` was promised `len` initialised, aligned bf16s in host memory
                // that are ours alone while the region lives, and it outlives this borrow.
                Values::Bf16(unsafe { from_raw_parts_mut(start, self.len) })
            }
            Element::F32 => {
                let start = self.start.cast::<f32>().as_ptr();
                // SAFETY: as above, for f32.
                Values::F32(unsafe { from_raw_parts_mut(start, self.len) })
            }
            Element::F64 => {
                let start = self.start.cast::<f64>().as_ptr();
                // SAFETY: as above, for f64.
                Values::F64(unsafe { from_raw_parts_mut(start, self.len) })
            }
        }
    }
}

/// Host numbers borrowed for one blocking call: `(&mut stats[..]).into()`.
#[derive(Debug)]
pub enum Values<'a> {
    /// 16-bit floats.
    Bf16(&'a mut [bf16]),
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// 64-bit floats.
    F64(&'a mut [f64]),
}

impl Values<'_> {
    /// What it holds.
    pub fn element(&self) -> Element {
        match self {
            Self::Bf16(_) => Element::Bf16,
            Self::F32(_) => Element::F32,
            Self::F64(_) => Element::F64,
        }
    }

    /// The bytes that travel.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Bf16(values) => bytemuck::cast_slice_mut(values),
            Self::F32(values) => bytemuck::cast_slice_mut(values),
            Self::F64(values) => bytemuck::cast_slice_mut(values),
        }
    }
}

impl<'a> From<&'a mut [bf16]> for Values<'a> {
    fn from(values: &'a mut [bf16]) -> Self {
        Self::Bf16(values)
    }
}

impl<'a> From<&'a mut [f32]> for Values<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a mut [f64]> for Values<'a> {
    fn from(values: &'a mut [f64]) -> Self {
        Self::F64(values)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A permanent buffer as the engine has them, for tests of other modules.

    use super::*;

    /// Keep it until its operation is over: then `values` shows the result.
    #[derive(Debug)]
    pub(crate) struct Permanent {
        start: NonNull<u8>,
        len: usize,
    }

    // SAFETY: it owns its memory, as a Vec does.
    unsafe impl Send for Permanent {}

    impl Permanent {
        /// Takes the values; the memory is never freed, so a lost region dangles nowhere.
        pub(crate) fn new(values: Vec<f64>) -> Self {
            let values = values.leak();
            let len = values.len();
            Self { start: NonNull::from(values).cast(), len }
        }

        pub(crate) fn region(&mut self) -> Region {
            // SAFETY: the memory lives for ever, and tests look at it only after `wait`.
            unsafe { Region::from_raw(self.start, self.len, Element::F64) }
        }

        pub(crate) fn values(&self) -> &[f64] {
            // SAFETY: `new` took them from a Vec; no operation is under way any more.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Permanent;
    use super::*;

    #[test]
    fn a_region_sees_the_buffer_it_was_made_from_and_travels_to_another_thread() {
        let mut buffer = Permanent::new(vec![1.0, 2.0, 3.0]);
        let mut region = buffer.region();
        std::thread::spawn(move || match region.values() {
            Values::F64(values) => values.iter_mut().for_each(|x| *x *= 2.0),
            Values::Bf16(_) | Values::F32(_) => unreachable!("the region was made of f64"),
        })
        .join()
        .unwrap();
        assert!(buffer.values().iter().eq(&[2.0, 4.0, 6.0]));
    }
}
