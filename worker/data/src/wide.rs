//! The widest vectors that the machine has, chosen at run time.

use pulp::{Arch, Simd, WithSimd};

/// Does `work`, compiled once for each kind of vectors that there may be.
///
/// Only what becomes part of `work`, by `#[inline(always)]`, is compiled so; the closure itself
/// included. pulp's own dispatch takes a closure by value, and so through a shim that the compiler
/// may leave outside.
#[expect(clippy::inline_always, reason = "it is what the vectors depend on")]
#[inline(always)]
pub(crate) fn wide<R>(work: impl FnMut() -> R) -> R {
    struct Work<F>(F);

    impl<R, F: FnMut() -> R> WithSimd for Work<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }

    Arch::new().dispatch(Work(work))
}
