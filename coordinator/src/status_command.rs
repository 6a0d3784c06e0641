//! `coordinator status`.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use lockstep_proto::{Phase, RunStatus, StatusClient, WorkerStatus};
use lockstep_service::exit::Failure;
use serde::Serialize;

use crate::calendar::utc;
use crate::cli::StatusArgs;
use crate::live_line::describe;

/// Pace of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Snapshot {
    run: RunStatus,
    workers: Vec<WorkerStatus>,
}

/// Asks the coordinator and writes its answers to `out`.
pub async fn run(args: &StatusArgs, out: &mut impl Write) -> Result<(), Failure> {
    let destination = args.coordinator.destination().map_err(Failure::config)?;
    let mut client = StatusClient::connect(&destination).await?;
    if !args.watch {
        let run = client.get_run().await?;
        return Ok(show(args, &mut client, run, out).await?);
    }
    let mut changes = client.watch_run(WATCH_INTERVAL).await?;
    while let Some(run) = changes.next().await {
        let run = run?;
        let over = matches!(run.phase, Phase::Complete | Phase::Failed);
        show(args, &mut client, run, out).await?;
        if over {
            break;
        }
    }
    Ok(())
}

async fn show(
    args: &StatusArgs,
    client: &mut StatusClient,
    run: RunStatus,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let snapshot = Snapshot { run, workers: client.list_workers().await? };
    let text = if args.json {
        serde_json::to_string(&snapshot).context("write the status as JSON")? + "\n"
    } else {
        table(&snapshot)
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("print the status")
}

fn table(snapshot: &Snapshot) -> String {
    let Snapshot { run, workers } = snapshot;
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        writeln!(text, "{name:<14} {value}").expect("strings take all writes");
    };
    row("run", &run.run_id);
    row("phase", run.phase.name());
    row("summary", &run.summary);
    row("since", &utc(run.since_unix_ms));
    if let Some(until) = run.until_unix_ms {
        row("until", &utc(until));
    }
    row("world", &format!("generation {}, {} ranks", run.generation.0, run.world_size));
    let spares = match run.spare_workers {
        0 => String::new(),
        spares => format!(", {spares} of them spare"),
    };
    row("workers", &format!("{} of {}{spares}", run.connected_workers, run.expected_workers));
    if let Some(straggler) = run.straggler {
        row("last to arrive", &format!("slot {}, by {}", straggler.slot.0, short(straggler.late)));
    }
    row("progress", &describe(run));
    let checkpoint = run.checkpoint_step.map_or("none".into(), |step| format!("step {}", step.0));
    row("checkpoint", &checkpoint);
    row("replaced", &format!("{} corrupt samples", run.replaced_samples));
    if !workers.is_empty() {
        text.push_str(&worker_table(workers));
    }
    text
}

fn worker_table(workers: &[WorkerStatus]) -> String {
    const HEAD: [&str; 11] = [
        "SLOT", "RANK", "STEP", "LANES", "IMAGES/S", "HEARD", "LATE", "KEPT OUT", "DEVICE", "HOST",
        "WORKER",
    ];
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(workers.iter().map(|worker| {
        [
            worker.slot.0.to_string(),
            worker.rank.map_or("-".into(), |rank| rank.0.to_string()),
            worker.step.0.to_string(),
            worker.lanes.to_string(),
            format!("{:.0}", worker.images_per_second),
            format!("{:.1} s ago", worker.silent.as_secs_f64()),
            worker.late.map_or("-".into(), short),
            if worker.cooldown.is_zero() { "-".into() } else { short(worker.cooldown) },
            worker.device.clone(),
            worker.host.clone(),
            worker.worker.0.clone(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..HEAD.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 11]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    "\n".to_owned() + &rows.iter().map(line).collect::<String>()
}

/// A time with two digits or more: `70 µs`, `1.5 ms`, `12.0 s`.
fn short(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", 1000.0 * time.as_secs_f64()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_the_unit_that_fits() {
        for (micros, text) in [(0, "0 µs"), (70, "70 µs"), (1500, "1.5 ms"), (12_000_000, "12.0 s")]
        {
            assert_eq!(short(Duration::from_micros(micros)), text);
        }
    }
}
