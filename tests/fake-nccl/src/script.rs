//! What goes wrong, and when: `LOCKSTEP_FAKE_NCCL="rank=1,sequence=12,error=3; version=21805"`.
//!
//! Rules are separated by semicolons. A rule is a fault and, before it, conditions: `rank`, `comm` (the
//! number of the communicator in its process, from 0), `sequence` (the number of the call on its
//! communicator, from 1). A condition that is left out holds always.

use std::sync::LazyLock;

/// Where a rule applies.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) rank: Option<u64>,
    pub(crate) comm: Option<u64>,
    pub(crate) sequence: Option<u64>,
}

/// What happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call fails with this code.
    Error(i32),
    /// The call succeeds; the failure shows later.
    Async(i32),
    /// The operation goes on until it is aborted.
    Hang,
    /// The operation goes on for ever, and so does its abort.
    Stuck,
    /// The operation takes so many milliseconds longer.
    Slow(u64),
    /// The process dies.
    Die,
    /// The call is never taken up.
    Busy,
    /// Forming fails at once with this code.
    InitError(i32),
    /// Forming fails later with this code.
    InitAsync(i32),
    /// Forming never ends.
    InitHang,
    /// The end in peace never ends.
    PartingHang,
    /// Destroying or aborting it never returns, though its operations end.
    EndHang,
    /// The library says that it is this version.
    Version(i32),
    /// There is no id, but this code.
    NoId(i32),
    /// This function of the driver fails with this code.
    Driver(String, i32),
}

static SCRIPT: LazyLock<Vec<(Place, Fault)>> =
    LazyLock::new(|| parse(&std::env::var("LOCKSTEP_FAKE_NCCL").unwrap_or_default()));

/// The fault that is due at a call of a communicator.
pub(crate) fn due(rank: u64, comm: u64, sequence: u64) -> Option<Fault> {
    let holds = |wanted: Option<u64>, is| wanted.is_none_or(|wanted| wanted == is);
    let mut rules = SCRIPT.iter();
    let of_a_call =
        |fault: &Fault| !matches!(fault, Fault::Version(_) | Fault::NoId(_) | Fault::Driver(..));
    rules
        .find(|(place, fault)| {
            of_a_call(fault)
                && holds(place.rank, rank)
                && holds(place.comm, comm)
                && holds(place.sequence, sequence)
        })
        .map(|(_, fault)| fault.clone())
}

/// The first fault, wherever it applies, that `pick` takes.
pub(crate) fn anywhere<T>(pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
    SCRIPT.iter().find_map(|(_, fault)| pick(fault))
}

fn parse(script: &str) -> Vec<(Place, Fault)> {
    script.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(parse_rule).collect()
}

fn parse_rule(rule: &str) -> (Place, Fault) {
    let mut place = Place::default();
    for word in rule.split(',').map(str::trim) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let code = || number(rule, value).try_into().expect("codes have 32 bits");
        let count = || Some(number(rule, value).unsigned_abs());
        let fault = match key {
            "rank" => {
                place.rank = count();
                continue;
            }
            "comm" => {
                place.comm = count();
                continue;
            }
            "sequence" => {
                place.sequence = count();
                continue;
            }
            "error" => Fault::Error(code()),
            "async" => Fault::Async(code()),
            "hang" => Fault::Hang,
            "stuck" => Fault::Stuck,
            "slow" => Fault::Slow(number(rule, value).unsigned_abs()),
            "die" => Fault::Die,
            "busy" => Fault::Busy,
            "init-error" => Fault::InitError(code()),
            "init-async" => Fault::InitAsync(code()),
            "init-hang" => Fault::InitHang,
            "parting-hang" => Fault::PartingHang,
            "end-hang" => Fault::EndHang,
            "version" => Fault::Version(code()),
            "no-id" => Fault::NoId(code()),
            "driver" => {
                let (name, code) = value.split_once(':').expect("driver=FUNCTION:CODE");
                Fault::Driver(name.into(), number(rule, code).try_into().expect("32 bits"))
            }
            other => panic!("LOCKSTEP_FAKE_NCCL: no fault '{other}' in '{rule}'"),
        };
        return (place, fault);
    }
    panic!("LOCKSTEP_FAKE_NCCL: no fault in '{rule}'")
}

fn number(rule: &str, text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("LOCKSTEP_FAKE_NCCL: '{text}' in '{rule}' is no number"))
}
