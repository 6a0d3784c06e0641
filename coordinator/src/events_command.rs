//! `coordinator events`.

use std::io::Write;

use anyhow::Context;
use lockstep_proto::{RunEvent, StatusClient};
use lockstep_service::exit::Failure;

use crate::calendar::utc;
use crate::cli::EventsArgs;

/// Asks the coordinator and writes its answers to `out`.
pub async fn run(args: &EventsArgs, out: &mut impl Write) -> Result<(), Failure> {
    let destination = args.coordinator.destination().map_err(Failure::config)?;
    let mut client = StatusClient::connect(&destination).await?;
    if args.follow {
        let mut events = client.follow_events(args.since).await?;
        while let Some(event) = events.next().await {
            show(args, &event?, out)?;
        }
        return Ok(());
    }
    let mut since = args.since;
    loop {
        let page = client.list_events(since).await?;
        let Some(newest) = page.last() else { return Ok(()) };
        since = newest.sequence + 1;
        page.iter().try_for_each(|event| show(args, event, out))?;
    }
}

fn show(args: &EventsArgs, event: &RunEvent, out: &mut impl Write) -> anyhow::Result<()> {
    let text = if args.json {
        serde_json::to_string(event).context("write an event as JSON")?
    } else {
        format!("{:>5}  {}  {}", event.sequence, utc(event.unix_ms), event.what)
    };
    writeln!(out, "{text}").and_then(|()| out.flush()).context("print the events")
}
