//! Waiting without ever blocking: ask, pause, ask again, until a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// How long asking again costs nothing but the processor: small messages are over by then.
const BRISK: Duration = Duration::from_micros(100);
/// Longest pause: what an abort waits for at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// Asks until there is an answer, or gives up (`None`) after `deadline`.
///
/// Pauses are a sixteenth of the time waited so far, so that they add as much at most.
pub(super) fn until<T, E>(
    deadline: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let start = now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        let waited = start.elapsed();
        if waited >= deadline {
            return Ok(None);
        }
        if waited < BRISK {
            thread::yield_now();
        } else {
            // Nobody unparks this thread on purpose; waking early only asks early.
            thread::park_timeout((waited / 16).min(LONGEST_PAUSE));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of the waits for the GPU")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = until(Duration::from_mins(1), || {
            asked += 1;
            Ok::<_, ()>((asked == 5).then_some("yes"))
        });
        assert_eq!((answer, asked), (Ok(Some("yes")), 5));
    }

    #[test]
    fn it_gives_up_at_the_deadline_and_passes_failures_on() {
        let never = until(Duration::from_millis(5), || Ok::<Option<()>, ()>(None));
        assert_eq!(never, Ok(None));
        assert_eq!(until(Duration::ZERO, || Err::<Option<()>, _>("broken")), Err("broken"));
    }
}
