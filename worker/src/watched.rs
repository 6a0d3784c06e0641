//! Collectives that are watched: how many were issued, and how long the first one of a step waited.
//!
//! A rank that is stuck issues no more of them while its peers wait in the next, so the number tells who holds
//! up the others. The first collective of a step is over when the last rank arrives, so that rank waits least.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lockstep_collective::{
    AbortHandle, Collective, CollectiveError, Pending, Rank, Reduction, Region, Values,
};
use lockstep_nn::Communicators;

/// What is seen of the collectives of one world, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    issued: AtomicU64,
    arrival: Mutex<Arrival>,
}

/// The first collective of the step in flight.
#[derive(Debug, Default, Clone, Copy)]
enum Arrival {
    /// It is not issued yet.
    Awaited,
    /// It took so long.
    Waited(Duration),
    /// No step has begun.
    #[default]
    Unknown,
}

impl Watch {
    /// Both communicators of a world, watched. Counting begins anew.
    pub(crate) fn over(self: &Arc<Self>, comm: Communicators) -> Communicators {
        self.issued.store(0, Ordering::Relaxed);
        let watched = |inner| Box::new(Watched { inner, watch: Arc::clone(self) });
        Communicators { statistics: watched(comm.statistics), gradients: watched(comm.gradients) }
    }

    /// Operations issued so far, on both communicators.
    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// A step begins.
    pub(crate) fn begin_step(&self) {
        self.set_arrival(Arrival::Awaited);
    }

    /// How long its first collective took, most of which is waiting for the peers.
    pub(crate) fn arrival_wait(&self) -> Option<Duration> {
        match self.arrival() {
            Arrival::Waited(time) => Some(time),
            Arrival::Awaited | Arrival::Unknown => None,
        }
    }

    fn arrival(&self) -> Arrival {
        *self.arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_arrival(&self, arrival: Arrival) {
        *self.arrival.lock().unwrap_or_else(PoisonError::into_inner) = arrival;
    }
}

/// A communicator that is watched.
struct Watched {
    inner: Box<dyn Collective>,
    watch: Arc<Watch>,
}

impl Watched {
    fn issue(&mut self) -> &mut dyn Collective {
        self.watch.issued.fetch_add(1, Ordering::Relaxed);
        self.inner.as_mut()
    }
}

impl Collective for Watched {
    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn world(&self) -> u32 {
        self.inner.world()
    }

    fn start_all_reduce(
        &mut self,
        region: Region,
        reduction: Reduction,
    ) -> Result<Pending, CollectiveError> {
        self.issue().start_all_reduce(region, reduction)
    }

    fn wait(&mut self, pending: Pending) -> Result<(), CollectiveError> {
        self.inner.wait(pending)
    }

    fn all_reduce_in_order(
        &mut self,
        region: Region,
        reduction: Reduction,
    ) -> Result<Pending, CollectiveError> {
        self.issue().all_reduce_in_order(region, reduction)
    }

    #[expect(clippy::disallowed_methods, reason = "measuring is what this is for")]
    fn all_reduce(
        &mut self,
        values: Values<'_>,
        reduction: Reduction,
    ) -> Result<(), CollectiveError> {
        if !matches!(self.watch.arrival(), Arrival::Awaited) {
            return self.issue().all_reduce(values, reduction);
        }
        let started = Instant::now();
        let reduced = self.issue().all_reduce(values, reduction);
        self.watch.set_arrival(Arrival::Waited(started.elapsed()));
        reduced
    }

    fn broadcast(&mut self, region: Region, root: Rank) -> Result<(), CollectiveError> {
        self.issue().broadcast(region, root)
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.issue().all_gather(mine)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.issue().barrier()
    }

    fn sequence(&self) -> u64 {
        self.inner.sequence()
    }

    fn abort_handle(&self) -> AbortHandle {
        self.inner.abort_handle()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_collective::Solo;

    use super::*;

    fn watched() -> (Arc<Watch>, Communicators) {
        let watch = Arc::new(Watch::default());
        let solo = || Box::new(Solo::default());
        let comm = watch.over(Communicators { statistics: solo(), gradients: solo() });
        (watch, comm)
    }

    #[test]
    fn operations_of_both_communicators_are_counted_and_a_new_world_begins_anew() {
        let (watch, mut comm) = watched();
        comm.statistics.all_reduce((&mut [1.0_f32][..]).into(), Reduction::Sum).unwrap();
        comm.gradients.barrier().unwrap();
        comm.gradients.all_gather(&[1]).unwrap();
        assert_eq!(watch.issued(), 3);
        let _next = watch.over(comm);
        assert_eq!(watch.issued(), 0);
    }

    #[test]
    fn the_wait_is_that_of_the_first_reduction_of_the_step() {
        let (watch, mut comm) = watched();
        let mut reduce =
            || comm.statistics.all_reduce((&mut [1.0_f32][..]).into(), Reduction::Sum).unwrap();
        reduce();
        assert_eq!(watch.arrival_wait(), None, "no step has begun");
        watch.begin_step();
        assert_eq!(watch.arrival_wait(), None, "nobody has arrived");
        reduce();
        let first = watch.arrival_wait();
        assert!(first.is_some());
        reduce();
        assert_eq!(watch.arrival_wait(), first);
    }
}
