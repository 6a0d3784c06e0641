//! The `worker` program: arguments, logging, [`worker::run`], exit code.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use lockstep_service::exit::{Failure, conclude, say, usage};
use lockstep_service::telemetry;
use worker::Meters;
use worker::cli::{Cli, Command};
use worker::commands::{self, bench, eval, export, import, index, pack, preview, report, verify};

/// For libtorch too. Every step allocates and frees the same activations, so freed memory is kept, in huge pages
/// (`.cargo/config.toml`): glibc's allocator maps large blocks anew each time, or keeps them in fragments.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
        (Some(Command::Index(args)), _) => index::run(args),
        (Some(Command::VerifyShards(args)), _) => verify::run(args),
        (Some(Command::Preview(args)), _) => preview::run(args),
        (Some(Command::Eval(args)), _) => eval::run(args),
        (Some(Command::Export(args)), _) => export::run(args),
        (Some(Command::Import(args)), _) => import::run(args),
        (Some(Command::Report(args)), _) => report::run(args),
        (Some(Command::Bench(args)), _) => bench::run(args),
        (None, Some(args)) => {
            return conclude(worker::run(args, &cli.tls, (&cli.store, &cli.cache), &meters));
        }
        (None, None) => unreachable!("without a command, clap insists on what training needs"),
    };
    done.unwrap_or_else(|error| {
        say(&error);
        commands::failure(&error)
    })
}
