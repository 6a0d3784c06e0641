//! Proof that a run used every sample once: reads the workers' applied logs (`worker --applied-log`).
//!
//! The history that counts is a chain of digests, walked from the last state back to the first. Each of its steps is the
//! newest that led to that state (a step that died with its world is redone, and leads to the same), and what all ranks
//! of that world used in it must be the batch that the sample order names.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use lockstep_data::Order;
use serde_json::Value;

/// What the logs show.
#[derive(Debug, Default)]
pub struct History {
    /// Digest of the state behind each step that counts, by step.
    pub digests: BTreeMap<u64, String>,
    /// Batches that were used in steps that do not count.
    pub redone: usize,
    /// Samples that the order names and no step that counts used.
    pub lost: usize,
    /// Samples that were used more than once in a step or data epoch, or that the order does not name.
    pub doubled: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    generation: u64,
    step: u64,
    cursor: u64,
    before: String,
}

#[derive(Debug, Default)]
struct Lines {
    /// Samples by generation, cursor and rank.
    used: HashMap<(u64, u64), BTreeMap<u64, Vec<u64>>>,
    /// By the state that they led to.
    changes: HashMap<String, Vec<Change>>,
}

impl History {
    /// Reads all logs in `folder`.
    ///
    /// # Panics
    ///
    /// If the logs hold no chain from the first step to the last.
    pub fn read(folder: &Path, order: &Order) -> Self {
        let lines = Lines::read(folder);
        let mut history = Self::default();
        let Some(mut state) = lines.last_state() else { return history };
        let mut epochs: BTreeMap<u64, HashMap<u64, usize>> = BTreeMap::new();
        loop {
            let change = lines.change(&state);
            history.digests.insert(change.step, state);
            let mut used: Vec<u64> = lines.used[&(change.generation, change.cursor)]
                .values()
                .flatten()
                .copied()
                .collect();
            let mut wanted: Vec<u64> =
                order.batch(change.cursor, 0..order.lanes()).iter().map(|id| id.0).collect();
            let epoch = epochs.entry(order.data_epoch(change.cursor)).or_default();
            for sample in &used {
                *epoch.entry(*sample).or_default() += 1;
            }
            used.sort_unstable();
            wanted.sort_unstable();
            history.lost += missing(&wanted, &used);
            history.doubled += missing(&used, &wanted);
            if change.step == 0 {
                break;
            }
            state = change.before;
        }
        history.doubled += epochs.values().flat_map(HashMap::values).map(|n| n - 1).sum::<usize>();
        history.redone = lines.used.len() - history.digests.len();
        history
    }

    /// The last step that counts.
    pub fn last_step(&self) -> u64 {
        self.digests.keys().next_back().copied().unwrap_or(0)
    }
}

/// How many of the sorted `wanted` are not in the sorted `found`.
fn missing(wanted: &[u64], found: &[u64]) -> usize {
    wanted.iter().filter(|sample| found.binary_search(sample).is_err()).count()
}

impl Lines {
    fn read(folder: &Path) -> Self {
        let mut lines = Self::default();
        for file in fs::read_dir(folder).expect("the folder of the logs").flatten() {
            let text = fs::read_to_string(file.path()).expect("a log");
            // A process that was killed while it wrote may have left half a line.
            for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                lines.add(&line);
            }
        }
        lines
    }

    fn add(&mut self, line: &Value) {
        let (kind, line) = line.as_object().and_then(|line| line.iter().next()).expect("one key");
        let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
        let text = |name: &str| line[name].as_str().expect(name).to_owned();
        let (generation, cursor) = (number("generation"), number("cursor"));
        match kind.as_str() {
            "used" => {
                let samples = line["samples"].as_array().expect("samples");
                let samples = samples.iter().map(|id| id.as_u64().expect("a number")).collect();
                let ranks = self.used.entry((generation, cursor)).or_default();
                ranks.insert(number("rank"), samples);
            }
            "applied" => {
                let change =
                    Change { generation, step: number("step"), cursor, before: text("before") };
                self.changes.entry(text("after")).or_default().push(change);
            }
            other => panic!("a step was {other}: {line}"),
        }
    }

    /// The newest state that most ranks agree on.
    fn last_state(&self) -> Option<String> {
        let newest = |changes: &Vec<Change>| {
            let last = changes.iter().map(|change| (change.step, change.generation)).max();
            last.map(|last| (last, changes.len()))
        };
        let (state, _) = self.changes.iter().max_by_key(|(_, changes)| newest(changes))?;
        Some(state.clone())
    }

    /// The newest step that led to a state.
    fn change(&self, state: &str) -> Change {
        let changes = self.changes.get(state);
        let changes = changes.unwrap_or_else(|| panic!("no step led to the state {state}"));
        let newest = changes.iter().max_by_key(|change| change.generation).expect("at least one");
        let other = changes.iter().find(|change| {
            (change.step, change.cursor, &change.before)
                != (newest.step, newest.cursor, &newest.before)
        });
        assert_eq!(other, None, "two histories led to the state {state}, one is {newest:?}");
        newest.clone()
    }
}
