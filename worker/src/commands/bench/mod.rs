//! `worker bench`: how fast is this machine at what training is made of?

use std::process::ExitCode;

mod data;
mod photos;
mod step;
mod stopwatch;

/// Measures parts of training on this machine.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The input pipeline alone: images per second, and where the time goes.
    Data(data::DataArgs),
    /// Optimizer steps on random images: images per second, and where the time goes.
    Step(step::StepArgs),
}

/// Measures, and prints the figures.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Data(args) => data::run(args),
        What::Step(args) => step::run(args),
    }
}
