//! The `worker` program: arguments, logging, [`worker::run`], exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use worker::cli::{Cli, Command};
use worker::commands;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
