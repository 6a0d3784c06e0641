//! `make chaos`: random faults over a run of real processes, and the proof that nothing was lost.

use std::io::Write;
use std::process::ExitCode;

use lockstep_tests::chaos::{Ordeal, Restarts};

/// How often the coordinator is killed beside the faults.
const RESTARTS: usize = 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(Ok(faults)), Some(Ok(seed)), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        say("usage: chaos FAULTS SEED, both whole numbers");
        return ExitCode::from(2);
    };
    let faults = usize::try_from(faults).unwrap_or(usize::MAX);
    say(&format!("{faults} faults, seed {seed}"));
    let report =
        Ordeal::start(seed).run(faults, |number, row| say(&format!("{number}/{faults}  {row}")));
    say(&format!("\n{report}"));
    say("\nnow the same steps without faults");
    let differing = report.differing_steps();
    say(&format!("{differing} steps led to another state than without faults"));
    let restarts = Restarts::endure(RESTARTS);
    say(&format!("\n{restarts}"));
    let clean = (report.history.lost, report.history.doubled, differing) == (0, 0, 0);
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(line: &str) {
    // Nobody to tell where standard output is closed.
    drop(writeln!(std::io::stdout(), "{line}"));
}
