//! A world of one: every operation is complete before it starts.

use crate::{AbortHandle, Collective, CollectiveError, Pending, Rank, Reduction, Region, Values};

/// The communicator of a rank that is alone. Needs no sockets, and counts and aborts as any other.
#[derive(Debug, Default)]
pub struct Solo {
    sequence: u64,
    abort: AbortHandle,
}

impl Solo {
    /// A world of one that `abort` ends.
    pub fn new(abort: AbortHandle) -> Self {
        Self { sequence: 0, abort }
    }

    fn issue(&mut self) -> Result<(), CollectiveError> {
        self.abort.check()?;
        self.sequence += 1;
        Ok(())
    }
}

impl Collective for Solo {
    fn rank(&self) -> Rank {
        Rank(0)
    }

    fn world(&self) -> u32 {
        1
    }

    fn start_all_reduce(&mut self, _: Region, _: Reduction) -> Result<Pending, CollectiveError> {
        self.issue()?;
        Ok(Pending::new(self.sequence))
    }

    fn wait(&mut self, _: Pending) -> Result<(), CollectiveError> {
        self.abort.check()
    }

    fn all_reduce(&mut self, _: Values<'_>, _: Reduction) -> Result<(), CollectiveError> {
        self.issue()
    }

    fn broadcast(&mut self, _: Region, root: Rank) -> Result<(), CollectiveError> {
        assert_eq!(root, Rank(0), "a world of one has no other root");
        self.issue()
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.issue()?;
        Ok(vec![mine.to_vec()])
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.issue()
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_nothing_changes_but_the_count() {
        let mut solo = Solo::default();
        let mut values = [1.5_f64, -2.0];
        solo.all_reduce((&mut values[..]).into(), Reduction::Sum).unwrap();
        assert_eq!(values.map(f64::to_bits), [1.5, -2.0].map(f64::to_bits));
        assert_eq!(solo.all_gather(b"digest").unwrap(), [b"digest"]);
        solo.barrier().unwrap();
        assert_eq!(solo.sequence(), 3);
    }

    #[test]
    fn an_aborted_world_of_one_refuses_every_call() {
        let mut solo = Solo::default();
        solo.abort_handle().abort();
        assert!(matches!(solo.barrier(), Err(CollectiveError::Aborted)));
    }
}
