//! `coordinator stop`, `checkpoint`, `pause`, `resume` and `drain`.

use std::io::Write;

use anyhow::Context;
use lockstep_proto::{Credentials, OperatorClient, OperatorCommand, PlainText};
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
    let in_plain_text =
        if args.send_token_in_plain_text { PlainText::Allowed } else { PlainText::Forbidden };
    let credentials = token.as_deref().map(|token| Credentials { token, in_plain_text });
    let destination = args.coordinator.destination().map_err(Failure::config)?;
    let mut client = OperatorClient::connect(&destination, credentials).await?;
    let answer = client.ask(command).await?;
    writeln!(out, "{answer}").and_then(|()| out.flush()).context("print the answer")?;
    Ok(())
}
