//! `coordinator stop`, `checkpoint`, `pause`, `resume` and `drain`.

use std::io::Write;

use anyhow::Context;
use lockstep_proto::{Exit, OperatorClient, OperatorCommand, SessionError, Verdict};
use lockstep_service::exit::Failure;

use crate::cli::OperatorArgs;
use crate::gate::read_token;

/// Asks the coordinator and writes its answer to `out`.
pub async fn run(
    command: OperatorCommand,
    args: &OperatorArgs,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let token = args.token_file.as_deref().map(read_token).transpose().map_err(Failure::config)?;
    let answer = ask(command, &args.addr, token.as_deref()).await.map_err(failure)?;
    writeln!(out, "{answer}").and_then(|()| out.flush()).context("print the answer")?;
    Ok(())
}

async fn ask(
    command: OperatorCommand,
    address: &str,
    token: Option<&[u8]>,
) -> Result<String, SessionError> {
    OperatorClient::connect(address, token).await?.ask(command).await
}

fn failure(error: SessionError) -> Failure {
    let exit = match error.verdict() {
        Verdict::Retry => Exit::RestartMe,
        Verdict::GiveUp => Exit::ConfigFault,
    };
    Failure { exit, error: error.into() }
}
