//! Command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lockstep_proto::Destination;
use lockstep_proto::layers::parse_assignment;
use lockstep_service::telemetry::LogFormat;
use lockstep_service::tls_args::{ClientTlsArgs, ServerTlsArgs};

/// Coordinates one BYOL pre-training run.
///
/// Without a subcommand it starts the coordinator: workers connect to it, it deals the work, and it
/// ends when the run is complete. Ctrl-C stops the run at a step edge, with a checkpoint.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of coordinating a run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to coordinate a run.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Questions and orders to a running coordinator.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows a run and its workers.
    Status(StatusArgs),
    /// Shows what happened in a run: who came and left, worlds, failures, checkpoints.
    Events(EventsArgs),
    /// Ends the run at the next step edge, with a checkpoint.
    Stop(OperatorArgs),
    /// Writes a checkpoint at the next step edge, and goes on.
    Checkpoint(OperatorArgs),
    /// Holds the run at the next step edge, with a checkpoint; workers keep their process and model.
    Pause(OperatorArgs),
    /// Goes on after a pause.
    Resume(OperatorArgs),
    /// Sends one worker away at the next step edge, for good.
    Drain(DrainArgs),
}

/// How to coordinate a run.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Workers to wait for; short for --set run.world=N
    #[arg(long, value_name = "N")]
    pub world: Option<u32>,
    /// Fewest workers that go on when others stay away; short for --set run.min_world=N
    #[arg(long, value_name = "N")]
    pub min_world: Option<u32>,
    /// Most workers that train together, the rest being spares; short for --set run.max_world=N
    #[arg(long, value_name = "N")]
    pub max_world: Option<u32>,
    /// Configuration of the run
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Named configuration to start from, for example `demo` or `imagenet-r50-300ep`
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Sets one configuration key, for example --set schedule.steps=20; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_assignment)]
    pub set: Vec<(String, String)>,
    /// Step, counted from 0, that all workers write out so that another program can recompute it; may be
    /// repeated; short for --set audit.steps=[K,…]
    #[arg(long, value_name = "K", requires = "audit_dir")]
    pub audit_step: Vec<u64>,
    /// Folder for audited steps that all workers can write to; short for --set audit.dir=DIR
    #[arg(long, value_name = "DIR", requires = "audit_step")]
    pub audit_dir: Option<PathBuf>,
    /// Where workers connect; port 0: any free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7400")]
    pub listen: SocketAddr,
    /// Where /metrics and /healthz are served; port 0: any free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9400")]
    pub metrics_listen: SocketAddr,
    /// Folder for what must survive a restart of the coordinator
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// File that gets one JSON line per applied step [default: DIR/steps.jsonl with --state-dir]
    #[arg(long, value_name = "FILE.jsonl")]
    pub reports: Option<PathBuf>,
    /// File with a token that operators must show; without it they are heard only where --listen is a loopback
    /// address
    #[arg(long, value_name = "FILE")]
    pub operator_token_file: Option<PathBuf>,
    /// Who is let in, and how.
    #[command(flatten)]
    pub tls: ServerTlsArgs,
    /// File that gets the URI for workers once it is bound
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Prints the configuration with the origin of each value, and ends
    #[arg(long)]
    pub print_config: bool,
}

/// A running coordinator, as its clients reach it.
#[derive(Debug, Clone, Args)]
pub struct CoordinatorArgs {
    /// Where the coordinator listens
    #[arg(long, value_name = "URI", default_value = "http://127.0.0.1:7400")]
    pub addr: String,
    /// How to reach it.
    #[command(flatten)]
    pub tls: ClientTlsArgs,
}

impl CoordinatorArgs {
    /// Where and how to connect.
    pub fn destination(&self) -> anyhow::Result<Destination> {
        self.tls.destination(&self.addr)
    }
}

/// What to show, and of whom.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Shows it again after every change, until the run is over
    #[arg(long)]
    pub watch: bool,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,
}

/// Which events to show, and of whom.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Goes on with new events until the coordinator ends
    #[arg(long)]
    pub follow: bool,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Leaves out the events before number N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub since: u64,
    /// Which coordinator.
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,
}

/// Which run to operate, and what shows that one may.
#[derive(Debug, Clone, Args)]
pub struct OperatorArgs {
    /// File with the coordinator's operator token, if it has one
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Sends the token to another machine even where it is not encrypted
    #[arg(long, requires = "token_file")]
    pub send_token_in_plain_text: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,
}

/// Whom to send away.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// The worker, as the last column of `coordinator status` names it
    #[arg(value_name = "WORKER")]
    pub worker: String,
    /// Of which run.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_subcommand_a_run_is_coordinated() {
        let cli = Cli::try_parse_from(["coordinator", "--world", "2", "--set", "schedule.steps=5"])
            .unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.world, Some(2));
        assert_eq!(cli.serve.set, [("schedule.steps".into(), "5".into())]);
    }

    #[test]
    fn status_takes_no_options_of_a_run() {
        let cli = Cli::try_parse_from(["coordinator", "status", "--json"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Status(StatusArgs { json: true, .. }))));
        assert!(Cli::try_parse_from(["coordinator", "--world", "2", "status"]).is_err());
    }
}
