//! A worker that has a supervisor.

use std::net::SocketAddr;
use std::num::NonZero;

use lockstep_proto::ids::Slot;

use crate::cli::TrainArgs;
use crate::commands::Misuse;
use crate::place::Place;

/// The environment variable with the supervisor's process id. Whoever has it is a worker, and no supervisor.
pub(crate) const SUPERVISOR: &str = "LOCKSTEP_SUPERVISOR";

/// Whether a supervisor started this process.
pub(crate) fn is_supervised() -> bool {
    std::env::var_os(SUPERVISOR).is_some()
}

/// Has the system kill this process when its supervisor dies, however that happens.
///
/// # Errors
///
/// Where it has died already.
pub(crate) fn die_with_supervisor() -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal, getppid};
    // Elsewhere workers outlive a supervisor that is killed, and leave when they are asked to.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map(Pid::as_raw_pid).map(|pid| pid.to_string());
    anyhow::ensure!(parent == std::env::var(SUPERVISOR).ok(), "the supervisor is gone");
    Ok(())
}

impl TrainArgs {
    /// The arguments of one of `--procs-per-node` processes that were all given these: what only one of them can have
    /// is made their own.
    pub(crate) fn of_process(&self, place: Place) -> Result<Self, Misuse> {
        let processes = self.procs_per_node.unwrap_or(1) as usize;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let own = |address| own_port(address, place.local);
        let mut args = self.clone();
        args.slot = place.slot.map(|Slot(slot)| slot);
        if args.threads == 0 {
            args.threads = (cores / processes).max(1);
        }
        args.collective_bind = own(args.collective_bind)?;
        args.metrics_listen = args.metrics_listen.map(own).transpose()?;
        if let Some(log) = &mut args.applied_log {
            log.as_mut_os_string().push(format!(".{}", place.local));
        }
        Ok(args)
    }
}

/// The ports of the processes of a machine follow one another; port 0 stays.
fn own_port(mut address: SocketAddr, local: u32) -> Result<SocketAddr, Misuse> {
    if address.port() == 0 {
        return Ok(address);
    }
    let own = u32::from(address.port()).checked_add(local).map(u16::try_from);
    let Some(Ok(port)) = own else {
        return Err(Misuse(format!(
            "{address} leaves no port for process {local} of --procs-per-node; give a lower one"
        )));
    };
    address.set_port(port);
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn args(more: &[&str]) -> TrainArgs {
        let arguments = ["worker", "--coordinator", "http://h:1", "--data", "d"];
        let arguments = arguments.iter().chain(more);
        Cli::try_parse_from(arguments).unwrap().train.unwrap()
    }

    #[test]
    fn processes_of_one_machine_share_no_port_and_no_log() {
        let given = [
            "--procs-per-node=4",
            "--collective-bind=10.0.0.1:7500",
            "--metrics-listen=0.0.0.0:9400",
            "--applied-log=applied",
            "--threads=2",
        ];
        let place = Place { slot: Some(Slot(11)), local: 3 };
        let own = args(&given).of_process(place).unwrap();
        assert_eq!(own.slot, Some(11));
        assert_eq!(own.collective_bind, "10.0.0.1:7503".parse().unwrap());
        assert_eq!(own.metrics_listen, Some("0.0.0.0:9403".parse().unwrap()));
        assert_eq!(own.applied_log.as_deref(), Some(Path::new("applied.3")));
        assert_eq!(own.threads, 2);
    }

    #[test]
    fn a_free_port_stays_one_and_cores_are_shared() {
        let own = args(&["--procs-per-node=256"]);
        let own = own.of_process(Place { slot: None, local: 1 }).unwrap();
        assert_eq!((own.collective_bind.port(), own.threads), (0, 1));
    }

    #[test]
    fn a_port_that_does_not_exist_is_refused() {
        let args = args(&["--procs-per-node=8", "--collective-bind=10.0.0.1:65530"]);
        let error = args.of_process(Place { slot: None, local: 7 }).unwrap_err();
        assert!(error.0.starts_with("10.0.0.1:65530 leaves no port for process 7"), "{error}");
    }
}
