//! Logs on stderr.

use std::io::{self, IsTerminal, Stderr, Write};

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

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
    init_with(format, None)
}

/// A layer that sees every span and event, whatever `RUST_LOG` lets into the log.
pub type ExtraLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// As [`init`], with one more layer, such as one that measures spans.
///
/// # Errors
///
/// As [`init`].
pub fn init_with(format: LogFormat, extra: Option<ExtraLayer>) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .with_context(|| format!("RUST_LOG is `{directives}`, which is not a filter"))?,
        Ok(_) | Err(_) => EnvFilter::new("info"),
    };
    let log = tracing_subscriber::fmt::layer().with_writer(LogWriter::new);
    let log = match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let started =
        tracing_subscriber::registry().with(extra).with(log.with_filter(filter)).try_init();
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}

/// An error and all that it is due to, in one line: a log of JSON lines would keep the first only. Some errors end
/// with the words of their cause, which are then not said again.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let add = |text: String, cause: String| {
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    };
    anyhow::Chain::new(error).map(ToString::to_string).reduce(add).unwrap_or_default()
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
