//! The `worker` program: arguments, logging, [`worker::run`], exit code.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use lockstep_proto::Exit;
use lockstep_service::exit::{Failure, conclude};
use lockstep_service::telemetry;
use worker::Meters;
use worker::cli::{Cli, Command};
use worker::commands::{self, eval, pack, report, verify};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let meters = Arc::new(Meters::default());
    let layer = Box::new(meters.phase_layer());
    if let Err(error) = telemetry::init_with(cli.log_format, Some(layer)) {
        return conclude(Err(Failure::config(error)));
    }
    let done = match (&cli.command, &cli.train) {
        (Some(Command::Pack(args)), _) => pack::run(args),
        (Some(Command::VerifyShards(args)), _) => verify::run(args),
        (Some(Command::Eval(args)), _) => eval::run(args),
        (Some(Command::Report(args)), _) => report::run(args),
        (None, Some(args)) => return conclude(worker::run(args, &meters)),
        (None, None) => {
            let mut help = Cli::command();
            let shown = help.print_help();
            return usage_shown(shown);
        }
    };
    done.unwrap_or_else(|error| {
        drop(writeln!(std::io::stderr(), "error: {error:#}"));
        commands::failure(&error)
    })
}

/// Help and version are no faults; anything else that clap says is.
fn usage(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    if error.use_stderr() { usage_shown(shown) } else { ExitCode::SUCCESS }
}

fn usage_shown(shown: std::io::Result<()>) -> ExitCode {
    if let Err(failed) = shown {
        drop(writeln!(std::io::stderr(), "error: cannot print: {failed}"));
    }
    ExitCode::from(Exit::ConfigFault.code())
}
