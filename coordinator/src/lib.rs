//! The coordinator: who takes part, what each worker reads, and what τ and η are.
//!
//! ```text
//!   workers ── gRPC ──▶ grpc.rs ── Input ──▶ ┌──────────┐ ── Effect ──▶ sessions, state_dir.rs,
//!   signals, timer ────────────────────────▶ │ shell.rs │               history.rs, event_file.rs
//!                                            │ the loop │ ── RunStatus ▶ status service, metrics.rs,
//!                                            └────┬─────┘               live_line.rs
//!                                       lockstep_core::Core decides
//! ```
//!
//! * `cli.rs`, `options.rs`: arguments, and the configuration they make;
//! * `server.rs`: everything is bound before anything starts, and stopped in order;
//! * `shell.rs`: the one loop of this process;
//! * `status_command.rs`: `coordinator status`; `events_command.rs`: `coordinator events`.

pub mod cli;
pub mod events_command;
pub mod options;
pub mod server;
pub mod status_command;

mod event_file;
mod grpc;
mod history;
mod json_lines;
mod live_line;
mod metrics;
mod shell;
mod state_dir;

use lockstep_proto::Exit;
use lockstep_service::exit::Failure;

use crate::cli::ServeArgs;
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

async fn serve(options: Options) -> Result<Exit, Failure> {
    let server = Server::bind(options).await?;
    let stop = server::stop_signals()?;
    Ok(server.run(stop).await?)
}
