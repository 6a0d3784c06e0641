//! `coordinator events`.

use std::io::Write;

use anyhow::Context;
use lockstep_proto::{RunEvent, StatusClient};
use lockstep_service::exit::Failure;
use time::OffsetDateTime;

use crate::cli::EventsArgs;

/// Asks the coordinator and writes its answers to `out`.
pub async fn run(args: &EventsArgs, out: &mut impl Write) -> Result<(), Failure> {
    let destination = args.coordinator.destination().map_err(Failure::config)?;
    let mut client = StatusClient::connect(&destination).await?;
    if args.follow {
        let mut events = client.follow_events(args.since).await?;
        while let Some(event) = events.next().await {
            show(args, &event?, out)?;
        }
        return Ok(());
    }
    let mut since = args.since;
    loop {
        let page = client.list_events(since).await?;
        let Some(newest) = page.last() else { return Ok(()) };
        since = newest.sequence + 1;
        page.iter().try_for_each(|event| show(args, event, out))?;
    }
}

fn show(args: &EventsArgs, event: &RunEvent, out: &mut impl Write) -> anyhow::Result<()> {
    let text = if args.json {
        serde_json::to_string(event).context("write an event as JSON")?
    } else {
        format!("{:>5}  {}  {}", event.sequence, utc(event.unix_ms), event.what)
    };
    writeln!(out, "{text}").and_then(|()| out.flush()).context("print the events")
}

/// A time as `2026-11-24 13:05:09 UTC`; one behind the year 9999 in seconds.
fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let time = i64::try_from(seconds).ok().map(OffsetDateTime::from_unix_timestamp);
    let Some(Ok(time)) = time else { return format!("{seconds} s after 1970 UTC") };
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        // Expected values: `date -u -d @SECONDS`.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_795_522_949, "2026-11-24 12:22:29 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1000 + 999), expected);
        }
    }
}
