//! The coordinator's process: arguments, logs, run, exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use coordinator::cli::{Cli, Command};
use lockstep_proto::Exit;
use lockstep_service::exit::{Failure, conclude};
use lockstep_service::telemetry;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    conclude(run(cli))
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(anyhow::Error::from)?;
    match cli.command {
        Some(Command::Status(args)) => {
            runtime.block_on(coordinator::status_command::run(&args, &mut std::io::stdout()))?;
            Ok(Exit::Done)
        }
        None => {
            telemetry::init(cli.serve.log_format).map_err(Failure::config)?;
            runtime.block_on(coordinator::run(cli.serve))
        }
    }
}

/// Help and version are no faults; anything else that clap says is.
fn usage(error: &clap::Error) -> ExitCode {
    let exit = if error.use_stderr() { Exit::ConfigFault } else { Exit::Done };
    if let Err(failed) = error.print() {
        drop(writeln!(std::io::stderr(), "error: cannot print: {failed}"));
    }
    ExitCode::from(exit.code())
}
