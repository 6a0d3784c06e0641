//! The coordinator: who takes part, what each worker reads, and what τ and η are.
//!
//! ```text
//!   workers ── gRPC ──▶ grpc.rs ── Input ──▶ ┌──────────┐ ── Effect ──▶ sessions, history.rs,
//!   signals, timer ────────────────────────▶ │ shell.rs │               journal.rs ▶ store.rs
//!                                            │ the loop │ ── RunStatus ▶ status service, metrics.rs,
//!                                            └────┬─────┘               live_line.rs
//!                                       lockstep_core::Core decides
//! ```
//!
//! * `cli.rs`, `options.rs`: arguments, and the configuration they make;
//! * `server.rs`: everything is bound before anything starts, and stopped in order; `accept.rs`: who gets in;
//! * `shell.rs`: the one loop of this process;
//! * `status_command.rs`, `events_command.rs`: `coordinator status` and `events`;
//! * `operator_command.rs`, `gate.rs`: orders to a running coordinator, and who may give them.

pub mod cli;
pub mod events_command;
pub mod operator_command;
pub mod options;
pub mod server;
pub mod status_command;

mod accept;
mod calendar;
mod gate;
mod grpc;
mod history;
mod journal;
mod json_lines;
mod live_line;
mod metrics;
mod shell;
mod store;

use std::io::Write;

use lockstep_proto::ids::WorkerUid;
use lockstep_proto::{Exit, OperatorCommand};
use lockstep_service::exit::Failure;

use crate::cli::{Command, ServeArgs};
use crate::options::Options;
use crate::server::Server;

/// Runs a coordinator until its run is over or a signal ends it.
pub async fn run(args: ServeArgs) -> Result<Exit, Failure> {
    let print_config = args.print_config;
    let (options, resolved) = options::resolve(args).map_err(Failure::config)?;
    if print_config {
        options::print(&resolved)?;
        return Ok(Exit::Done);
    }
    serve(options).await
}

/// Asks a running coordinator, and writes its answer to `out`.
pub async fn ask(command: Command, out: &mut impl Write) -> Result<(), Failure> {
    let (command, args) = match command {
        Command::Status(args) => return status_command::run(&args, out).await,
        Command::Events(args) => return events_command::run(&args, out).await,
        Command::Stop(args) => (OperatorCommand::Stop, args),
        Command::Checkpoint(args) => (OperatorCommand::Checkpoint, args),
        Command::Pause(args) => (OperatorCommand::Pause, args),
        Command::Resume(args) => (OperatorCommand::Resume, args),
        Command::Drain(args) => (OperatorCommand::Drain(WorkerUid(args.worker)), args.operator),
    };
    operator_command::run(command, &args, out).await
}

async fn serve(options: Options) -> Result<Exit, Failure> {
    let server = Server::bind(options).await?;
    let stop = server::stop_signals()?;
    Ok(server.run(stop).await?)
}
