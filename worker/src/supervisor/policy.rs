//! What a supervisor does with its processes. Pure: `now` is time since it started.
//!
//! ```text
//!  running ── 75, a signal, any other code ──▶ resting ── its pause is over ──▶ running
//!     │                                           │
//!     └── 0, 42, 93, or anything once asked to end ──▶ over ◀── asked to end
//! ```

use std::fmt;
use std::time::Duration;

use lockstep_proto::Exit;

/// Pause before a process is started again; doubles with each short life in a row, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A process that lived so long was well: the next pause is the first again.
const LONG_LIFE: Duration = Duration::from_mins(1);

/// Time that processes have to come to a step edge and save, once they are asked to end. Less than the grace of
/// `deploy/k8s/workers.yaml`.
const LEAVE_WITHIN: Duration = Duration::from_secs(90);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With this exit code.
    Code(u32),
    /// By this signal.
    Signal(i32),
    /// It could not be started.
    NotStarted,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::NotStarted => f.write_str("not started"),
        }
    }
}

/// What is done to a process, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Start(usize),
    /// Asked to leave at the next step edge.
    Terminate(usize),
    Kill(usize),
}

/// What comes after the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is started again after a pause.
    Again(Duration),
    /// Nothing.
    Over,
}

/// All processes of a supervisor.
#[derive(Debug)]
pub(super) struct Policy {
    seats: Vec<Seat>,
    /// When processes that are still there are killed; `None`: they are not to end.
    deadline: Option<Duration>,
    /// Of the first process that ended for good other than with 0.
    fault: Option<Exit>,
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    state: State,
    /// Lives in a row that were short.
    short_lives: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running { since: Duration },
    Resting { until: Duration },
    Over,
}

impl Policy {
    /// For so many processes, which [`Policy::tick`] starts.
    pub(super) fn new(processes: u32) -> Self {
        let seat = Seat { state: State::Resting { until: Duration::ZERO }, short_lives: 0 };
        Self { seats: vec![seat; processes as usize], deadline: None, fault: None }
    }

    /// What is due.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = Some(now + LEAVE_WITHIN);
            return self.to_running(Action::Kill);
        }
        let mut due = Vec::new();
        for (index, seat) in self.seats.iter_mut().enumerate() {
            if matches!(seat.state, State::Resting { until } if now >= until) {
                seat.state = State::Running { since: now };
                due.push(Action::Start(index));
            }
        }
        due
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, now: Duration, index: usize, end: End) -> Next {
        let exit = match end {
            End::Code(code) => Exit::from_code(code).unwrap_or(Exit::RestartMe),
            End::Signal(_) | End::NotStarted => Exit::RestartMe,
        };
        let seat = &mut self.seats[index];
        if exit == Exit::RestartMe && self.deadline.is_none() {
            let pause = seat.pause(now);
            seat.state = State::Resting { until: now + pause };
            return Next::Again(pause);
        }
        seat.state = State::Over;
        if exit != Exit::Done {
            self.fault.get_or_insert(exit);
        }
        Next::Over
    }

    /// The supervisor was asked to end: all leave at a step edge; asked again, they end at once.
    pub(super) fn asked_to_end(&mut self, now: Duration) -> Vec<Action> {
        if self.deadline.is_some() {
            return self.to_running(Action::Kill);
        }
        self.deadline = Some(now + LEAVE_WITHIN);
        for seat in &mut self.seats {
            if matches!(seat.state, State::Resting { .. }) {
                seat.state = State::Over;
            }
        }
        self.to_running(Action::Terminate)
    }

    /// When [`Policy::tick`] has something to do next; never, where that is `None`.
    pub(super) fn next_tick(&self) -> Option<Duration> {
        let pauses = self.seats.iter().filter_map(|seat| match seat.state {
            State::Resting { until } => Some(until),
            State::Running { .. } | State::Over => None,
        });
        pauses.chain(self.deadline).min()
    }

    /// How the supervisor ends, once all processes have ended for good: with 0 if all did, else as the first that did not.
    pub(super) fn over(&self) -> Option<Exit> {
        let over = self.seats.iter().all(|seat| seat.state == State::Over);
        over.then(|| self.fault.unwrap_or(Exit::Done))
    }

    fn to_running(&self, action: fn(usize) -> Action) -> Vec<Action> {
        let running = |seat: &Seat| matches!(seat.state, State::Running { .. });
        let seats = self.seats.iter().enumerate();
        seats.filter(|(_, seat)| running(seat)).map(|(index, _)| action(index)).collect()
    }
}

impl Seat {
    /// The pause behind a life that ends now.
    fn pause(&mut self, now: Duration) -> Duration {
        let State::Running { since } = self.state else { unreachable!("only a life can end") };
        if now.saturating_sub(since) >= LONG_LIFE {
            self.short_lives = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.short_lives));
        self.short_lives = self.short_lives.saturating_add(1);
        pause.min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;

    fn started(processes: u32) -> Policy {
        let mut policy = Policy::new(processes);
        let starts: Vec<_> = (0..processes as usize).map(Action::Start).collect();
        assert_eq!(policy.tick(START), starts);
        policy
    }

    /// The pause after an end, at which the process is started again.
    fn again(policy: &mut Policy, now: Duration, index: usize, end: End) -> Duration {
        let Next::Again(pause) = policy.ended(now, index, end) else {
            panic!("{end:?} is for good")
        };
        assert_eq!(policy.next_tick(), Some(now + pause));
        assert_eq!(policy.tick(now + pause / 2), []);
        assert_eq!(policy.tick(now + pause), [Action::Start(index)]);
        pause
    }

    #[test]
    fn a_process_is_started_again_after_75_a_signal_and_codes_that_say_nothing() {
        for end in [End::Code(75), End::Signal(9), End::Code(101), End::NotStarted] {
            assert_eq!(again(&mut started(2), START, 1, end), FIRST_PAUSE);
        }
    }

    #[test]
    fn a_process_that_ended_with_0_42_or_93_is_not_started_again() {
        for code in [0, 42, 93] {
            let mut policy = started(2);
            assert_eq!(policy.ended(START, 0, End::Code(code)), Next::Over);
            assert_eq!((policy.next_tick(), policy.over()), (None, None), "the other one goes on");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_a_long_life() {
        let mut policy = started(1);
        let mut now = START;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = again(&mut policy, now, 0, End::Code(75));
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(again(&mut policy, now + LONG_LIFE, 0, End::Code(75)), FIRST_PAUSE);
    }

    #[test]
    fn the_first_process_that_did_not_end_well_decides_the_exit_code() {
        let mut policy = started(3);
        for (index, code) in [(1, 0), (2, 93), (0, 42)] {
            assert_eq!(policy.over(), None);
            policy.ended(START, index, End::Code(code));
        }
        assert_eq!(policy.over(), Some(Exit::DoNotRestart));
        let mut well = started(1);
        well.ended(START, 0, End::Code(0));
        assert_eq!(well.over(), Some(Exit::Done));
    }

    #[test]
    fn asked_to_end_it_has_all_leave_and_starts_none_again() {
        let mut policy = started(3);
        policy.ended(START, 2, End::Code(75));
        let leaving = [Action::Terminate(0), Action::Terminate(1)];
        assert_eq!(policy.asked_to_end(START), leaving, "slot 2 was resting");
        assert_eq!(policy.ended(START, 0, End::Code(0)), Next::Over);
        assert_eq!(policy.over(), None);
        assert_eq!(policy.ended(START, 1, End::Code(0)), Next::Over);
        assert_eq!(policy.over(), Some(Exit::Done));
    }

    #[test]
    fn who_does_not_leave_in_time_or_is_asked_twice_is_killed_and_leaves_75_behind() {
        let mut policy = started(2);
        policy.asked_to_end(START);
        assert_eq!(policy.tick(LEAVE_WITHIN / 2), []);
        assert_eq!(policy.next_tick(), Some(LEAVE_WITHIN));
        policy.ended(START, 0, End::Code(0));
        assert_eq!(policy.tick(LEAVE_WITHIN), [Action::Kill(1)]);
        policy.ended(LEAVE_WITHIN, 1, End::Signal(9));
        assert_eq!(policy.over(), Some(Exit::RestartMe));

        let mut twice = started(2);
        twice.asked_to_end(START);
        assert_eq!(twice.asked_to_end(START), [Action::Kill(0), Action::Kill(1)]);
    }
}
