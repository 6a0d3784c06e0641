//! Logs on stderr.

use std::io::{self, IsTerminal, Stderr, Write};

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Clears the line that a live display may have left.
pub const CLEAR_LINE: &str = "\r\x1b[2K";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. `RUST_LOG` chooses what is logged, as in `RUST_LOG=debug` or
/// `RUST_LOG=info,coordinator=trace`; without it, `info`.
pub fn init(format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .with_context(|| format!("RUST_LOG is `{directives}`, which is not a filter"))?,
        Ok(_) | Err(_) => EnvFilter::new("info"),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(LogWriter::new);
    let started = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}

/// Stderr; on a terminal, a log line first clears the live line it would be appended to.
#[derive(Debug)]
struct LogWriter(Stderr);

impl LogWriter {
    fn new() -> Self {
        Self(io::stderr())
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut stderr = self.0.lock();
        if stderr.is_terminal() {
            stderr.write_all(CLEAR_LINE.as_bytes())?;
        }
        stderr.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
