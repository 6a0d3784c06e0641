//! One rank of the tests of the NCCL backend: `nccl-rank RANK WORLD SCENARIO DEADLINE_MS`.
//!
//! Rank 0 prints the ids that it makes (`id …`); the other ranks read them from standard input. What
//! comes out stands in lines of `result …`; a failure is the line `failed RECOVERY MESSAGE`, and the exit
//! code is what a worker would do: 75 to be started again, 1 to stop, 3 to ask for the next world.

mod buffer;
mod everything;
mod late;
mod scenarios;

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use lockstep_collective::{
    AbortHandle, CollectiveError, Nccl, NcclCollective, NcclError, NcclSpec, Rank, Recovery,
    UniqueId,
};

/// This rank's place, and the library.
#[derive(Debug)]
pub(crate) struct Seat {
    nccl: Nccl,
    rank: Rank,
    world: u32,
    deadline: Duration,
}

/// Why a scenario ended early.
#[derive(Debug)]
pub(crate) enum Failed {
    Nccl(NcclError),
    Collective(CollectiveError),
}

impl From<NcclError> for Failed {
    fn from(error: NcclError) -> Self {
        Self::Nccl(error)
    }
}

impl From<CollectiveError> for Failed {
    fn from(error: CollectiveError) -> Self {
        Self::Collective(error)
    }
}

impl Failed {
    fn recovery(&self) -> Recovery {
        match self {
            Self::Nccl(_) => Recovery::Abort,
            Self::Collective(error) => error.recovery(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nccl(error) => error.fmt(f),
            Self::Collective(error) => error.fmt(f),
        }
    }
}

impl Seat {
    /// An id that all ranks have in common.
    pub(crate) fn id(&self) -> Result<UniqueId, NcclError> {
        if self.rank == Rank(0) {
            let id = self.nccl.unique_id()?;
            let mut hex = String::new();
            for byte in id.as_bytes() {
                write!(hex, "{byte:02x}").expect("a string takes everything");
            }
            say(format_args!("id {hex}"));
            return Ok(id);
        }
        let mut line = String::new();
        io::stdin().read_line(&mut line).expect("the test sends ids");
        let digits = line.trim().as_bytes();
        let byte = |pair: &[u8]| {
            u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("an id in hex")
        };
        UniqueId::from_bytes(&digits.chunks(2).map(byte).collect::<Vec<_>>())
    }

    pub(crate) fn form(
        &self,
        generation: u64,
        id: UniqueId,
        abort: &AbortHandle,
    ) -> Result<NcclCollective, CollectiveError> {
        let spec = NcclSpec {
            rank: self.rank,
            world: self.world,
            generation,
            id,
            device: None,
            deadline: self.deadline,
        };
        NcclCollective::form(&self.nccl, spec, abort.clone())
    }
}

/// Prints a line that the test reads.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // A test that is gone reads nothing.
    writeln!(io::stdout(), "{line}").ok();
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).without_time().init();
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [rank, world, scenario, deadline] = &words[..] else {
        panic!("nccl-rank RANK WORLD SCENARIO DEADLINE_MS");
    };
    let number = |word: &String| word.parse::<u32>().expect("a number");
    let played = Nccl::load().map_err(Failed::from).and_then(|nccl| {
        say(format_args!("version {}", nccl.version()));
        let deadline = Duration::from_millis(number(deadline).into());
        let seat = Seat { nccl, rank: Rank(number(rank)), world: number(world), deadline };
        scenarios::play(scenario, &seat)
    });
    let Err(failed) = played else { return ExitCode::SUCCESS };
    let recovery = failed.recovery();
    say(format_args!("failed {recovery:?} {failed}"));
    match recovery {
        Recovery::Rejoin => 3.into(),
        Recovery::Restart => 75.into(),
        Recovery::Abort => 1.into(),
    }
}
