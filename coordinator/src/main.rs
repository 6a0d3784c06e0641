//! The coordinator's process: arguments, logs, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use coordinator::cli::Cli;
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
    if let Some(command) = cli.command {
        runtime.block_on(coordinator::ask(command, &mut std::io::stdout()))?;
        return Ok(Exit::Done);
    }
    telemetry::init(cli.serve.log_format).map_err(Failure::config)?;
    runtime.block_on(coordinator::run(cli.serve))
}
