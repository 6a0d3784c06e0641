//! `coordinator events`.

use std::io::Write;

use anyhow::Context;
use lockstep_proto::{RunEvent, StatusClient};

use crate::cli::EventsArgs;

/// Asks the coordinator and writes its answers to `out`.
pub async fn run(args: &EventsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let mut client = StatusClient::connect(&args.addr).await?;
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

/// A time as `2026-11-24 13:05:09 UTC`.
///
/// The date is that of the proleptic Gregorian calendar, by eras of 400 years that begin with March, so that the
/// day a leap year adds comes last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let days = seconds / 86_400 + 719_468; // since 1 March of year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
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
