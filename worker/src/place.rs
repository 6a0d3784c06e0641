//! Where this process stands in its job, from what the launchers of clusters put into the environment.
//!
//! | launcher | is seen by | slot | local index | index of the node |
//! |---|---|---|---|---|
//! | `worker --procs-per-node`, `torchrun` | `RANK` or `LOCAL_RANK` | `RANK` | `LOCAL_RANK` | `GROUP_RANK` |
//! | Slurm's `srun` | `SLURM_STEP_ID` | `SLURM_PROCID` | `SLURM_LOCALID` | `SLURM_NODEID` |
//! | an Indexed Job of Kubernetes | `JOB_COMPLETION_INDEX` | that | 0 | that |
//! | none | | the coordinator gives one | 0 | 0 |
//!
//! The first row that is seen counts. Slurm sets its other variables for the batch script too, whose workers would all be
//! number 0: only a step of `srun` is believed.

use lockstep_proto::ids::Slot;

use crate::commands::Misuse;

/// A process in its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its stable index in the job.
    pub(crate) slot: Option<Slot>,
    /// Its index among the job's processes on this machine: which GPU is its own.
    pub(crate) local: u32,
}

/// A variable of the environment, if it is set.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Place {
    /// The place of a process that trains.
    pub(crate) fn find(variable: Variable<'_>) -> Result<Self, Misuse> {
        let number = |name| number(variable, name);
        let (slot, local) = match Launcher::find(variable) {
            Some(Launcher::Torchrun) => (number("RANK")?, number("LOCAL_RANK")?),
            Some(Launcher::Slurm) => (number("SLURM_PROCID")?, number("SLURM_LOCALID")?),
            Some(Launcher::Kubernetes) => (number("JOB_COMPLETION_INDEX")?, None),
            None => (None, None),
        };
        Ok(Self { slot: slot.map(Slot), local: local.unwrap_or(0) })
    }
}

/// The first slot of a supervisor of `processes`, one of which runs on each node.
pub(crate) fn first_slot(variable: Variable<'_>, processes: u32) -> Result<Slot, Misuse> {
    let name = match Launcher::find(variable) {
        Some(Launcher::Torchrun) => "GROUP_RANK",
        Some(Launcher::Slurm) => "SLURM_NODEID",
        Some(Launcher::Kubernetes) => "JOB_COMPLETION_INDEX",
        None => return Ok(Slot(0)),
    };
    let node = number(variable, name)?.unwrap_or(0);
    let first = node.checked_mul(processes);
    first.map(Slot).ok_or_else(|| {
        Misuse(format!("{name}={node} with {processes} processes per node: too many slots"))
    })
}

/// Who started this process.
#[derive(Debug, Clone, Copy)]
enum Launcher {
    Torchrun,
    Slurm,
    Kubernetes,
}

impl Launcher {
    fn find(variable: Variable<'_>) -> Option<Self> {
        let is_set = |name: &str| variable(name).is_some();
        if is_set("RANK") || is_set("LOCAL_RANK") {
            Some(Self::Torchrun)
        } else if is_set("SLURM_STEP_ID") {
            Some(Self::Slurm)
        } else {
            is_set("JOB_COMPLETION_INDEX").then_some(Self::Kubernetes)
        }
    }
}

fn number(variable: Variable<'_>, name: &str) -> Result<Option<u32>, Misuse> {
    let Some(text) = variable(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Misuse(format!(
            "{name} is `{text}` in the environment, expected a whole number; \
             unset it, or start the worker as the launcher that sets it does"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(environment: &[(&str, &str)]) -> Result<Place, Misuse> {
        Place::find(&|name| lookup(environment, name))
    }

    fn first(environment: &[(&str, &str)], processes: u32) -> Result<Slot, Misuse> {
        first_slot(&|name| lookup(environment, name), processes)
    }

    fn lookup(environment: &[(&str, &str)], name: &str) -> Option<String> {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn at(slot: u32, local: u32) -> Place {
        Place { slot: Some(Slot(slot)), local }
    }

    const TORCHRUN: [(&str, &str); 3] = [("RANK", "11"), ("LOCAL_RANK", "3"), ("GROUP_RANK", "1")];
    const SRUN: [(&str, &str); 4] = [
        ("SLURM_STEP_ID", "0"),
        ("SLURM_PROCID", "9"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_NODEID", "2"),
    ];

    #[test]
    fn each_launcher_tells_slot_and_local_index_in_its_own_words() {
        assert_eq!(place(&TORCHRUN).unwrap(), at(11, 3));
        assert_eq!(place(&SRUN).unwrap(), at(9, 1));
        assert_eq!(place(&[("JOB_COMPLETION_INDEX", "5")]).unwrap(), at(5, 0));
        assert_eq!(place(&[]).unwrap(), Place { slot: None, local: 0 });
        let only_local = Place { slot: None, local: 2 };
        assert_eq!(place(&[("LOCAL_RANK", "2")]).unwrap(), only_local);
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let inside_slurm = [&SRUN[..], &TORCHRUN].concat();
        assert_eq!(place(&inside_slurm).unwrap(), at(11, 3));
        let slurm_in_a_pod = [&[("JOB_COMPLETION_INDEX", "5")], &SRUN[..]].concat();
        assert_eq!(place(&slurm_in_a_pod).unwrap(), at(9, 1));
    }

    #[test]
    fn a_batch_script_of_slurm_is_no_task_of_a_step() {
        let batch = [("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0"), ("SLURM_NODEID", "0")];
        assert_eq!(place(&batch).unwrap(), Place { slot: None, local: 0 });
    }

    #[test]
    fn a_supervisor_takes_the_slots_of_its_node() {
        assert_eq!(first(&TORCHRUN, 8).unwrap(), Slot(8));
        assert_eq!(first(&SRUN, 4).unwrap(), Slot(8));
        assert_eq!(first(&[("JOB_COMPLETION_INDEX", "3")], 2).unwrap(), Slot(6));
        assert_eq!(first(&[], 8).unwrap(), Slot(0));
        let many = first(&[("JOB_COMPLETION_INDEX", "4000000000")], 2).unwrap_err();
        assert!(many.0.contains("JOB_COMPLETION_INDEX=4000000000 with 2 processes"), "{many}");
    }

    #[test]
    fn what_is_no_number_is_named() {
        let error = place(&[("RANK", "1"), ("LOCAL_RANK", "first")]).unwrap_err();
        assert!(error.0.starts_with("LOCAL_RANK is `first` in the environment"), "{error}");
    }
}
