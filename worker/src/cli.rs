//! Arguments of the `worker` program.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lockstep_service::telemetry::LogFormat;
use lockstep_service::tls_args::ClientTlsArgs;

use crate::commands;
use crate::data_set::{CacheArgs, StoreArgs};

/// Processes that one supervisor takes on: more than any machine has GPUs.
const MAX_PROCESSES: i64 = 256;

/// Trains image encoders with BYOL as one rank of a distributed run, and does what belongs around it.
#[derive(Debug, Parser)]
#[command(name = "worker", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of training.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Training.
    #[command(flatten)]
    pub train: Option<TrainArgs>,

    /// How to reach the coordinator. Not in `train`: a group of arguments with another one inside counts as absent.
    #[command(flatten)]
    pub tls: ClientTlsArgs,

    /// How training data are read that lie in an object store. Not in `train` either.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What is kept of them. Not in `train` either.
    #[command(flatten)]
    pub cache: CacheArgs,

    /// Form of the log on standard error; `RUST_LOG` chooses what is logged.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What to do instead of training.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make shards from images in folders, data set files or tars.
    Pack(commands::pack::PackArgs),
    /// Make a data set of WebDataset tars where they lie.
    Index(commands::index::IndexArgs),
    /// Check shards, byte for byte and image for image.
    VerifyShards(commands::verify::VerifyArgs),
    /// Draw images with the two views that training makes of them.
    Preview(commands::preview::PreviewArgs),
    /// Judge an encoder.
    Eval(commands::eval::EvalArgs),
    /// Write an encoder for other programs.
    Export(commands::export::ExportArgs),
    /// Start a run from the weights of another program.
    Import(commands::import::ImportArgs),
    /// Write a report of a run as one HTML file.
    Report(commands::report::ReportArgs),
    /// Measure this machine.
    Bench(commands::bench::BenchArgs),
}

/// One rank of a run. Everything that decides what is computed comes from the coordinator.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Where the coordinator listens, for example `http://127.0.0.1:7400`, or `https://coordinator:7400`.
    #[arg(long, value_name = "URL")]
    pub coordinator: String,

    /// Packed training data: a folder with `manifest.json`, made by `worker pack`, or the URL of such a folder in an object
    /// store.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Where checkpoints are kept and looked for; share it among the workers. Without it nothing is
    /// saved.
    #[arg(long, value_name = "DIR")]
    pub checkpoints: Option<PathBuf>,

    /// Supervise so many workers on this machine, one per GPU, each with these arguments, instead of being one: say when
    /// one ends, and start it again where that helps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_PROCESSES))]
    pub procs_per_node: Option<u32>,

    /// Threads of the engine; 0: as many as there are cores, divided by `--procs-per-node`.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,

    /// Threads that decode and augment images.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub loader_threads: usize,

    /// `auto`, `cpu`, or `cuda:N`; `auto` takes the GPU of this process's index on its node, and the CPU where there is no GPU.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,

    /// Stable index of this worker in its job; with `--procs-per-node`, that of the first one on this machine. Default: as
    /// `torchrun`, Slurm or Kubernetes say in the environment, or else what the coordinator gives.
    #[arg(long, value_name = "N")]
    pub slot: Option<u32>,

    /// The run this worker belongs to; refused by a coordinator of another one. Default: any.
    #[arg(long, value_name = "ID")]
    pub run_id: Option<String>,

    /// Address that the collectives listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub collective_bind: SocketAddr,

    /// Address that peers use to reach the collectives, when it is not the one they listen on.
    #[arg(long, value_name = "IP")]
    pub collective_advertise: Option<IpAddr>,

    /// Where `/metrics` and `/healthz` are served; without it they are not.
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,

    /// Append what every step consumes and which state it makes, as JSON lines, to prove that no sample is lost or used
    /// twice. Costs two digests of the state per step.
    #[arg(long, value_name = "FILE")]
    pub applied_log: Option<PathBuf>,

    /// Give up when no coordinator answers for so many seconds.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub connect_timeout: u64,
}

impl TrainArgs {
    /// [`TrainArgs::connect_timeout`] as a duration.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.connect_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_and_data_are_enough_to_train() {
        let arguments = ["worker", "--coordinator", "http://h:1", "--data", "d", "--tls-ca", "ca"];
        let cli = Cli::try_parse_from(arguments).unwrap();
        assert!(cli.train.is_some() && cli.tls.tls_ca.is_some());
        let nothing = Cli::try_parse_from(["worker"]).unwrap_err();
        assert_eq!(nothing.kind(), clap::error::ErrorKind::MissingRequiredArgument);
    }
}
