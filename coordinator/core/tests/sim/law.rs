//! What must hold of everything that a coordinator ever did, over all its restarts.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_core::{AppliedStep, Record, Then};
use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Cursor, Generation, Step, WorkerUid};
use lockstep_proto::{CommunicatorIds, PlanWindow, StepPlan, World};

use super::meeting::Held;

/// All promises so far.
#[derive(Debug, Default)]
pub(crate) struct Law {
    /// Newest world in the journal, and whether it is over there.
    journaled: Generation,
    open: bool,
    /// Whether the run is to end with it.
    last: bool,
    /// How far that world is planned in the journal.
    planned: Step,
    worlds: BTreeMap<Generation, World>,
    members: Vec<WorkerUid>,
    members_before: Vec<WorkerUid>,
    /// Who was sent away.
    banned: BTreeSet<WorkerUid>,
    /// What every step was ever planned to be.
    plans: BTreeMap<Step, StepPlan>,
    regroups: BTreeMap<(Generation, Step), bool>,
    communicators: BTreeMap<Generation, CommunicatorIds>,
    applied: BTreeSet<(Generation, Cursor)>,
    /// By batch: the state behind it.
    states: BTreeMap<u64, Held>,
}

impl Law {
    pub(crate) fn journal(&mut self, record: &Record) {
        match record {
            Record::World(world) => {
                assert!(world.generation > self.journaled, "generations must grow");
                assert!(!self.open, "two live worlds");
                assert!(!self.last, "a world behind the one that was to be the last");
                (self.journaled, self.open) = (world.generation, true);
                self.planned = world.start.step;
                let members = world.members.iter().map(|place| place.worker.clone()).collect();
                self.members_before = std::mem::replace(&mut self.members, members);
            }
            Record::Planned(planned) => {
                assert_eq!(planned.generation, self.journaled, "a plan of a world that is over");
                assert!(self.open && planned.until > self.planned, "a plan of no new step");
                self.planned = planned.until;
            }
            Record::Stopping(generation, stopping) => {
                assert_eq!(*generation, self.journaled, "the stop of another world");
                assert!(self.open && !self.last, "stopped already");
                self.last = stopping.then == Then::End;
            }
            Record::Ended(generation) => {
                assert_eq!(*generation, self.journaled, "the end of another world");
                self.open = false;
            }
            Record::Banned(worker, _) => {
                self.banned.insert(worker.clone());
            }
            Record::Checkpoint(_) => {}
        }
    }

    /// A world is announced to one of its members.
    pub(crate) fn announced(&mut self, world: &World, config: &RunConfig) {
        assert_eq!(world.generation, self.journaled, "not journaled");
        assert!(self.open, "a world that is over");
        let size = u32::try_from(world.members.len()).expect("a small world");
        let sizes = config.run.least()..=config.run.most();
        assert!(sizes.contains(&size), "{size} members, not {sizes:?}");
        let banned = world.members.iter().find(|member| self.banned.contains(&member.worker));
        assert_eq!(banned, None, "a worker that was sent away is back");
        let lanes = world.members.iter().map(|member| member.lanes);
        let dealt: Vec<_> = lanes.flat_map(|l| l.first..l.first + l.count).collect();
        assert_eq!(dealt, (0..config.data.lanes).collect::<Vec<_>>(), "every lane once");
        let first = self.worlds.entry(world.generation).or_insert_with(|| world.clone());
        let same = World { rank: first.rank, ..world.clone() };
        assert_eq!(*first, same, "two versions of one world");
    }

    /// A window is sent to one of the members.
    pub(crate) fn planned(&mut self, window: &PlanWindow) {
        assert_eq!(window.generation, self.journaled, "a stale plan");
        assert!(self.open, "a plan of a world that is over");
        for plan in &window.steps {
            assert!(plan.step < self.planned, "a plan that is not journaled");
            let kept = StepPlan { regroup: false, ..*plan };
            let first = self.plans.entry(plan.step).or_insert(kept);
            assert_eq!(*first, kept, "two plans for one step");
            let regroup =
                self.regroups.entry((window.generation, plan.step)).or_insert(plan.regroup);
            assert_eq!(*regroup, plan.regroup, "ranks would leave behind different steps");
        }
    }

    /// Ids are handed on to one of the members.
    pub(crate) fn communicators(&mut self, ids: &CommunicatorIds) {
        assert_eq!(ids.generation, self.journaled, "ids of another world");
        assert!(self.open, "ids of a world that is over");
        let first = self.communicators.entry(ids.generation).or_insert_with(|| ids.clone());
        assert_eq!(first, ids, "two sets of ids for one world");
    }

    /// A line of history.
    pub(crate) fn applied(&mut self, line: &AppliedStep) {
        let fresh = self.applied.insert((line.generation, line.cursor));
        assert!(fresh, "step {} of generation {} twice in history", line.step.0, line.generation.0);
    }

    /// A worker holds a state: the one that every worker holds behind these batches.
    pub(crate) fn holds(&mut self, held: Held) {
        let first = self.states.entry(held.cursor).or_insert(held);
        assert_eq!(*first, held, "a batch was left out, or applied twice");
    }

    /// Members of the world before the newest one.
    pub(crate) fn members_before(&self) -> &[WorkerUid] {
        &self.members_before
    }

    pub(crate) fn newest_generation(&self) -> Generation {
        self.journaled
    }

    pub(crate) fn worlds(&self) -> impl Iterator<Item = &World> {
        self.worlds.values()
    }

    pub(crate) fn world(&self, generation: Generation) -> Option<&World> {
        self.worlds.get(&generation)
    }
}
