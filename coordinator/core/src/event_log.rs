//! What happened lately, for whoever asks.

use std::collections::VecDeque;

use lockstep_proto::{Occurrence, OperatorCommand, RunEvent};

/// Events that are kept; the oldest go first.
const MAX_KEPT: usize = 4096;

/// The newest events of a run, in order.
#[derive(Debug, Clone, Default)]
pub struct EventLog {
    kept: VecDeque<RunEvent>,
    paused: bool,
}

impl EventLog {
    /// Appends an event.
    ///
    /// # Panics
    ///
    /// Where its sequence number is below [`next`](Self::next).
    pub fn push(&mut self, event: RunEvent) {
        assert!(event.sequence >= self.next(), "event {} is out of order", event.sequence);
        if let Occurrence::OperatorAsked { command } = &event.what {
            let is = |asked: OperatorCommand| *command == asked.to_string();
            self.paused = is(OperatorCommand::Pause)
                || (self.paused && !is(OperatorCommand::Resume) && !is(OperatorCommand::Stop));
        }
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    /// Lowest sequence number that the next event may have.
    pub fn next(&self) -> u64 {
        self.kept.back().map_or(1, |newest| newest.sequence + 1)
    }

    /// Whether an operator has paused the run, and neither resumed nor stopped it.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// At most `most` events from sequence number `since` on, or from the oldest that is kept.
    pub fn since(&self, since: u64, most: usize) -> Vec<RunEvent> {
        let first = self.kept.partition_point(|event| event.sequence < since);
        self.kept.iter().skip(first).take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_proto::ids::Generation;

    use super::*;

    #[test]
    fn an_empty_log_begins_with_one() {
        let log = EventLog::default();
        assert_eq!((log.next(), log.since(0, 9)), (1, Vec::new()));
    }

    #[test]
    fn events_are_found_by_number_and_in_pages() {
        let log = log(5);
        assert_eq!(numbers(&log.since(0, 9)), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&log.since(2, 2)), [2, 3]);
        assert!(log.since(6, 9).is_empty());
    }

    #[test]
    fn only_the_newest_are_kept() {
        let last = MAX_KEPT as u64 + 3;
        let log = log(last);
        assert_eq!(numbers(&log.since(0, 1)), [4]);
        assert_eq!(log.next(), last + 1);
    }

    #[test]
    fn a_pause_lasts_until_resume_or_stop() {
        let mut log = EventLog::default();
        let mut paused_after = |command: &str| {
            let what = Occurrence::OperatorAsked { command: command.into() };
            log.push(RunEvent { sequence: log.next(), unix_ms: 0, what });
            log.paused()
        };
        let after =
            ["pause", "checkpoint", "resume", "pause", "drain w", "stop"].map(&mut paused_after);
        assert_eq!(after, [true, true, false, true, true, false]);
    }

    fn log(last: u64) -> EventLog {
        let what = Occurrence::CoordinatorStarted { generation: Generation(0) };
        let mut log = EventLog::default();
        for sequence in 1..=last {
            log.push(RunEvent { sequence, unix_ms: 0, what: what.clone() });
        }
        log
    }

    fn numbers(events: &[RunEvent]) -> Vec<u64> {
        events.iter().map(|event| event.sequence).collect()
    }
}
