//! `events.jsonl` in the state folder: the events of a run, over restarts of the coordinator.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use lockstep_core::EventLog;
use lockstep_proto::RunEvent;

use crate::json_lines::JsonLines;

/// Appends to a file.
#[derive(Debug)]
pub(crate) struct EventFile {
    lines: JsonLines,
}

impl EventFile {
    /// Opens the file of a state folder; with the events in it. Half a last line, as a crash leaves it, is cut off
    /// with a warning; any other damage is an error.
    pub(crate) fn open(state_dir: &Path) -> anyhow::Result<(Self, EventLog)> {
        let path = state_dir.join("events.jsonl");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let (events, whole) =
            parse(&text).with_context(|| format!("read the events {}", path.display()))?;
        if whole < text.len() {
            let bytes = text.len() - whole;
            tracing::warn!(path = %path.display(), bytes, "the last event was cut short; dropping it");
            cut(&path, whole).with_context(|| format!("repair {}", path.display()))?;
        }
        Ok((Self { lines: JsonLines::open(&path)? }, events))
    }

    pub(crate) fn append(&mut self, event: &RunEvent) {
        self.lines.append(event);
    }
}

fn cut(path: &Path, length: usize) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length as u64)?;
    file.sync_all()
}

/// The events of a file, and the length of the part that is whole.
fn parse(text: &[u8]) -> anyhow::Result<(EventLog, usize)> {
    let mut events = EventLog::default();
    let mut whole = 0;
    for (number, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        if !line.ends_with(b"\n") {
            break;
        }
        match parse_line(line, events.next()) {
            Ok(event) => events.push(event),
            Err(problem) => bail!(
                "line {number} {problem}; correct it, or move the file away to begin a new list"
            ),
        }
        whole += line.len();
    }
    Ok((events, whole))
}

fn parse_line(line: &[u8], next: u64) -> Result<RunEvent, String> {
    let event: RunEvent =
        serde_json::from_slice(line).map_err(|error| format!("is no event: {error}"))?;
    // An event that a full disk kept out of the file leaves a gap.
    if event.sequence < next {
        return Err(format!("is event {}, expected {next} or more", event.sequence));
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use lockstep_proto::Occurrence;
    use lockstep_proto::ids::Generation;

    use super::*;

    #[test]
    fn events_are_found_again_and_go_on_counting() {
        let folder = tempfile::tempdir().unwrap();
        for sequence in 1..=3 {
            let (mut file, events) = EventFile::open(folder.path()).unwrap();
            assert_eq!(events.next(), sequence);
            file.append(&event(sequence));
        }
        let events = EventFile::open(folder.path()).unwrap().1;
        assert_eq!(events.since(0, 9), [event(1), event(2), event(3)]);
    }

    #[test]
    fn every_cut_of_the_file_keeps_all_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, _) = EventFile::open(folder.path()).unwrap();
        (1..=3).for_each(|sequence| file.append(&event(sequence)));
        let path = folder.path().join("events.jsonl");
        let text = fs::read(&path).unwrap();
        for length in 0..text.len() {
            fs::write(&path, text.get(..length).unwrap()).unwrap();
            let whole = text.iter().take(length).filter(|byte| **byte == b'\n').count() as u64;
            let (mut file, events) = EventFile::open(folder.path()).unwrap();
            assert_eq!(events.next(), whole + 1, "cut at {length}");
            file.append(&event(whole + 1));
            assert_eq!(EventFile::open(folder.path()).unwrap().1.next(), whole + 2);
        }
    }

    #[test]
    fn damage_inside_is_an_error_with_its_line_and_not_a_new_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let lines = |events: [&str; 3]| fs::write(&path, events.join("\n") + "\n").unwrap();
        let [first, third] =
            [1, 3].map(|sequence| serde_json::to_string(&event(sequence)).unwrap());
        lines([&first, "{\"sequence\":", &third]);
        let error = format!("{:#}", EventFile::open(folder.path()).unwrap_err());
        assert!(error.contains("line 2 is no event"), "{error}");
        lines([&first, &third, &third]);
        let error = format!("{:#}", EventFile::open(folder.path()).unwrap_err());
        assert!(error.contains("line 3 is event 3, expected 4 or more"), "{error}");
    }

    fn event(sequence: u64) -> RunEvent {
        let what = Occurrence::CoordinatorStarted { generation: Generation(sequence) };
        RunEvent { sequence, unix_ms: 5, what }
    }
}
