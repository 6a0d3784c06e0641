//! Faults on order, for tests of the whole (cargo feature `failpoints`, never in a build for use).
//!
//! A test puts a file into the folder that `LOCKSTEP_FAILPOINTS` names; the trainer takes it at its next step edge:
//!
//! * `flip`: one bit of the state buffer that the file names (`online`, `momentum`, …) flips;
//! * `stall`: the trainer does nothing for so many milliseconds, while heartbeats go on.
//!
//! One file stays, since a run that goes on from a checkpoint meets the same batches again:
//!
//! * `poison`: a view in this rank's part of the global batch with this cursor has a pixel that is no number.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_data::LoadedBatch;
use lockstep_nn::Byol;
use tch::Kind;

/// The environment variable with the folder.
const FOLDER: &str = "LOCKSTEP_FAILPOINTS";

/// Does what a test asked for since the last time.
pub(crate) fn at_step_edge(model: &mut Byol) {
    let Some(folder) = folder() else { return };
    if let Some(name) = take(&folder.join("flip")) {
        flip(model, &name);
    }
    if let Some(millis) = take(&folder.join("stall")).and_then(|text| text.parse().ok()) {
        tracing::warn!(millis, "failpoint: stall");
        stall(Duration::from_millis(millis));
    }
}

/// The batch as a test wants it.
pub(crate) fn poisoned(mut batch: LoadedBatch) -> LoadedBatch {
    let wanted = folder().and_then(|folder| fs::read_to_string(folder.join("poison")).ok());
    if wanted.is_some_and(|wanted| wanted == batch.cursor.to_string()) {
        tracing::warn!(cursor = batch.cursor, "failpoint: a view is poisoned");
        // Of the last micro-batch: what the ones before it have added up is thrown away, too.
        *batch.view_two.last_mut().expect("views have pixels") = f32::NAN;
    }
    batch
}

fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// The content of a file, which is gone then.
fn take(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    fs::remove_file(path).ok()?;
    Some(text)
}

/// The lowest bit of the exponent of the first element: the number doubles or halves.
fn flip(model: &mut Byol, name: &str) {
    tracing::warn!(name, "failpoint: a bit flips");
    for (_, flat) in model.state_mut().into_iter().filter(|(buffer, _)| *buffer == name) {
        let value = flat.double_value(&[0]);
        #[expect(clippy::cast_possible_truncation, reason = "then it was a 32-bit float")]
        let flipped = if flat.kind() == Kind::Double {
            f64::from_bits(value.to_bits() ^ (1 << 52))
        } else {
            f64::from(f32::from_bits((value as f32).to_bits() ^ (1 << 23)))
        };
        let _filled = flat.narrow(0, 0, 1).fill_(flipped);
    }
}

#[expect(clippy::disallowed_methods, reason = "being stuck is the fault")]
fn stall(time: Duration) {
    std::thread::sleep(time);
}
