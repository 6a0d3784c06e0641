//! The last operations of a communicator, for whoever asks why it ended.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::operation::Operation;

/// Operations remembered: more than a step has in flight.
const KEPT: usize = 64;

/// The last operations, oldest first. Times count from the forming of the communicator.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    operation: Operation,
    bytes: usize,
    issued: Duration,
    over: Option<Duration>,
}

impl History {
    pub(super) fn issued(&mut self, operation: Operation, bytes: usize, at: Duration) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { operation, bytes, issued: at, over: None });
    }

    /// Operations end in the order of their issue.
    pub(super) fn over(&mut self, sequence: u64, at: Duration) {
        let entry = self.entries.iter_mut().rev().find(|e| e.operation.sequence == sequence);
        if let Some(entry) = entry {
            entry.over = Some(at);
        }
    }

    /// One line for each, oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.entries.iter().map(Entry::to_string)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, bytes, issued, over } = self;
        write!(f, "{operation}: {bytes} bytes, issued at {issued:.3?}, ")?;
        match over {
            Some(at) => write!(f, "over at {at:.3?}"),
            None => f.write_str("not over"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Kind;

    #[test]
    fn the_last_64_operations_are_kept_with_what_became_of_them() {
        let mut history = History::default();
        for sequence in 1..=100 {
            let operation = Operation { kind: Kind::Barrier, generation: 7, sequence, len: 0 };
            history.issued(operation, 4, Duration::from_millis(sequence));
        }
        history.over(99, Duration::from_millis(200));
        history.over(1, Duration::from_millis(200));
        let lines: Vec<_> = history.lines().collect();
        assert_eq!(lines.len(), KEPT);
        assert!(lines[0].starts_with("barrier 37 "), "{}", lines[0]);
        let [.., before, last] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(
            before,
            "barrier 99 (generation 7): 4 bytes, issued at 99.000ms, over at 200.000ms"
        );
        assert_eq!(last, "barrier 100 (generation 7): 4 bytes, issued at 100.000ms, not over");
    }
}
