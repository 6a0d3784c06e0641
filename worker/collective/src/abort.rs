//! The switch that ends a world from another thread.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::CollectiveError;

/// Makes every pending and later call of a world's communicators return
/// [`CollectiveError::Aborted`], at once and for good. Cheap to clone; works from any thread.
#[derive(Debug, Clone, Default)]
pub struct AbortHandle {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    aborted: AtomicBool,
    bell: OnceLock<Bell>,
}

/// Two connected sockets: shutting one down makes the other readable for good, so that any
/// number of threads asleep in `poll` on it wake.
#[derive(Debug)]
struct Bell {
    ring: UnixStream,
    heard: UnixStream,
}

impl AbortHandle {
    /// A switch that is not thrown yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Throws it. Doing so twice is harmless.
    pub fn abort(&self) {
        self.state.aborted.store(true, Ordering::SeqCst);
        if let Some(bell) = self.state.bell.get() {
            // Fails only if it rang before.
            bell.ring.shutdown(Shutdown::Both).ok();
        }
    }

    /// Whether it was thrown.
    pub fn is_aborted(&self) -> bool {
        self.state.aborted.load(Ordering::SeqCst)
    }

    pub(crate) fn check(&self) -> Result<(), CollectiveError> {
        if self.is_aborted() { Err(CollectiveError::Aborted) } else { Ok(()) }
    }

    /// Becomes readable when the switch is thrown. Call [`check`](Self::check) *after* this and
    /// before sleeping on it: a switch thrown earlier rang no bell.
    pub(crate) fn bell(&self) -> io::Result<BorrowedFd<'_>> {
        if self.state.bell.get().is_none() {
            let (ring, heard) = UnixStream::pair()?;
            // Lost the race: another thread's pair is as good.
            self.state.bell.set(Bell { ring, heard }).ok();
        }
        Ok(self.state.bell.get().expect("set above").heard.as_fd())
    }
}
