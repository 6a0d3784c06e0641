//! The lines of a file of JSON lines, as they come.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

/// Reads on where it stopped. A file that is not there yet is empty.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    /// Whole lines that came since the last call; one that is no JSON (half of it went down with its writer) is left out.
    pub(super) fn read(&mut self) -> Vec<Value> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let mut text = String::new();
        file.seek(SeekFrom::Start(self.offset)).expect("an offset in a file");
        file.read_to_string(&mut text).expect("lines of text");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        text.get(..whole)
            .unwrap_or("")
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}
