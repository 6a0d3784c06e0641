//! Times for people.

use time::OffsetDateTime;

/// A time as `2026-11-24 13:05:09 UTC`; one behind the year 9999 in seconds.
pub(crate) fn utc(unix_ms: u64) -> String {
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
