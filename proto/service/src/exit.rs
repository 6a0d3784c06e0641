//! From a result to an exit code.

use std::io::Write;
use std::process::ExitCode;

use lockstep_proto::{Exit, SessionError, Verdict};

use crate::telemetry::chain;

/// An error that ends the process, and how.
#[derive(Debug)]
pub struct Failure {
    /// The verdict.
    pub exit: Exit,
    /// Why.
    pub error: anyhow::Error,
}

impl Failure {
    /// The configuration or an argument is wrong.
    pub fn config(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::ConfigFault, error: error.into() }
    }
}

/// What is not known to be permanent may pass: start again.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::RestartMe, error }
    }
}

/// What would fail again is for people to correct.
impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let exit = match error.verdict() {
            Verdict::Retry => Exit::RestartMe,
            Verdict::GiveUp => Exit::ConfigFault,
        };
        Self { exit, error: error.into() }
    }
}

/// The process's exit code. An error is [said](say).
pub fn conclude(result: Result<Exit, Failure>) -> ExitCode {
    let exit = result.unwrap_or_else(|failure| {
        say(&failure.error);
        failure.exit
    });
    ExitCode::from(exit.code())
}

/// Prints the error that ends the process to stderr, with its causes.
pub fn say(error: &anyhow::Error) {
    // Where stderr is closed, the exit code still tells.
    drop(writeln!(std::io::stderr(), "error: {}", chain(error.as_ref())));
}

/// Prints what clap has to say, and how the process then exits: help and version are no faults, anything
/// else is.
pub fn usage(error: &clap::Error) -> ExitCode {
    let exit = if error.use_stderr() { Exit::ConfigFault } else { Exit::Done };
    if let Err(failed) = error.print() {
        drop(writeln!(std::io::stderr(), "error: cannot print: {failed}"));
    }
    ExitCode::from(exit.code())
}
