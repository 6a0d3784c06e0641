//! The figures of an ordeal.

use std::fmt;
use std::time::Duration;

use super::audit::History;
use super::fault::Fault;
use super::ordeal::undisturbed;

/// One fault and what came of it, from the moment that it began.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which.
    pub fault: Fault,
    /// What struck another worker meanwhile.
    pub second: Option<Fault>,
    /// Whom it struck.
    pub slot: usize,
    /// Until the coordinator knew (by its events); none: it had no reason to act.
    pub noticed: Option<Duration>,
    /// From then on, until the other members of the world had left it.
    pub aborted: Option<Duration>,
    /// Until the first step of the next world.
    pub again: Option<Duration>,
    /// The longest time without a step.
    pub pause: Duration,
}

/// What came of all faults.
#[derive(Debug)]
pub struct Report {
    /// One per fault, in order.
    pub rows: Vec<Measured>,
    /// What the applied logs show.
    pub history: History,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |time: Option<Duration>| {
            time.map_or("–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        let Self { fault, second, slot, noticed, aborted, again, pause } = self;
        write!(f, "{fault:23} slot {slot}  noticed {:>7}  ", show(*noticed))?;
        write!(f, "aborted {:>7}  again {:>7}  ", show(*aborted), show(*again))?;
        write!(f, "longest pause {:>7}", show(Some(*pause)))?;
        second.map_or(Ok(()), |second| write!(f, "  meanwhile: {second}"))
    }
}

impl Report {
    /// Runs the same steps without faults; how many led to another state.
    pub fn differing_steps(&self) -> usize {
        let other = undisturbed(self.history.last_step());
        let digests = self.history.digests.iter();
        digests.filter(|(step, digest)| other.digests.get(step) != Some(digest)).count()
    }

    /// The table's lines: each kind alone, and all that came two at once.
    fn lines(&self) -> Vec<(String, Vec<&Measured>)> {
        let rows = |wanted: &dyn Fn(&Measured) -> bool| -> Vec<_> {
            self.rows.iter().filter(|row| wanted(row)).collect()
        };
        let alone = |fault: Fault| rows(&move |row| row.second.is_none() && row.fault == fault);
        let mut lines: Vec<_> = Fault::ALL.map(|fault| (fault.to_string(), alone(fault))).into();
        lines.push(("two at once".into(), rows(&|row| row.second.is_some())));
        lines.retain(|(_, rows)| !rows.is_empty());
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| fault | times | noticed | aborted | training again | longest pause |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (name, rows) in self.lines() {
            let median = |of: fn(&Measured) -> Option<Duration>| {
                median(rows.iter().filter_map(|row| of(row)).collect())
                    .map_or("–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
            };
            writeln!(
                f,
                "| {name} | {} | {} | {} | {} | {} |",
                rows.len(),
                median(|row| row.noticed),
                median(|row| row.aborted),
                median(|row| row.again),
                median(|row| Some(row.pause)),
            )?;
        }
        let History { redone, lost, doubled, .. } = self.history;
        write!(f, "{} steps, {redone} batches redone, ", self.history.last_step() + 1)?;
        write!(f, "{lost} samples lost, {doubled} doubled")
    }
}

/// The middle one.
fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
