//! A file that grows by lines of JSON.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

/// Appends to a file.
#[derive(Debug)]
pub(crate) struct JsonLines {
    path: PathBuf,
    file: File,
    /// Length up to the last whole line.
    length: u64,
    /// Whether the last line could not be written, so that a full disk is told once.
    failing: bool,
}

impl JsonLines {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.with_context(|| format!("open {} to append to it", path.display()))?;
        let length = file.metadata().with_context(|| format!("look at {}", path.display()))?.len();
        Ok(Self { path: path.to_owned(), file, length, failing: false })
    }

    /// Appends a line. A run goes on where that fails: these files are for looking at.
    pub(crate) fn append(&mut self, line: &impl Serialize) {
        let result = self.write(line);
        if let Err(error) = &result
            && !self.failing
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot append to the file");
        }
        self.failing = result.is_err();
    }

    fn write(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        if let Err(error) = self.file.write_all(&text) {
            // Half a line would run into the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += text.len() as u64;
        Ok(())
    }
}
