//! The coordinator's process: arguments, logs, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use coordinator::cli::{Cli, Command};
use lockstep_proto::Exit;
use lockstep_service::exit::{Failure, conclude, usage};
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
        Some(Command::Events(args)) => {
            runtime.block_on(coordinator::events_command::run(&args, &mut std::io::stdout()))?;
            Ok(Exit::Done)
        }
        None => {
            telemetry::init(cli.serve.log_format).map_err(Failure::config)?;
            runtime.block_on(coordinator::run(cli.serve))
        }
    }
}
