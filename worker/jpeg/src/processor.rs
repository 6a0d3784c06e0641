//! One piece of work, compiled for several processors; the best of them runs.

use pulp::NullaryFnOnce;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use crate::idct::Transform;
use crate::packing::Pack;

/// Runs everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// What a processor does in a way of its own; the outcome is the same with all of them.
pub(crate) trait Processor: Transform + Pack {}

impl<P: Transform + Pack> Processor for P {}

/// Work that is compiled for each processor. All that it calls must become part of it, by `inline(always)`.
///
/// A closure would do, but its shim is not always inlined, and is then compiled for any processor.
pub(crate) trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<P: Processor>(self, processor: P) -> Self::Output;
}

/// Runs the best code for the processor at hand.
pub(crate) fn run<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(processor) = V3::try_new() {
        let call = Call { work, processor };
        // Wider vectors would not help, but there are twice as many of them.
        return match V4::try_new() {
            Some(wide) => wide.vectorize(call),
            None => processor.vectorize(call),
        };
    }
    work.run(Portable)
}

struct Call<W, P> {
    work: W,
    processor: P,
}

impl<W: Work, P: Processor> NullaryFnOnce for Call<W, P> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.work.run(self.processor)
    }
}
