//! What must survive a restart of the coordinator.
//!
//! A [`Record`] is durable before the effects behind it are carried out ([`crate::Effect::Journal`]). So no worker
//! knows of a world, or of the plan of a step, that a coordinator which is started again would not know.

use std::collections::BTreeMap;

use lockstep_proto::ids::{Cursor, Generation, Slot, Step, WorkerUid};
use lockstep_proto::{DataSet, LaneRange, TrainingState};
use serde::{Deserialize, Serialize};

/// One entry of the journal of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A world is about to be announced.
    World(WorldRecord),
    /// More steps of the present world are about to be planned.
    Planned(Planned),
    /// The world of this generation is about to be asked to end at a step edge.
    Stopping(Generation, Stopping),
    /// The world of this generation is over, and if the run is, all workers have gone.
    Ended(Generation),
    /// A checkpoint of this step is safe on disk.
    Checkpoint(Step),
    /// A worker is sent away for good.
    Banned(WorkerUid, Banned),
}

/// Why a worker was sent away for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Banned {
    /// An operator wanted it.
    Drained,
    /// It held another state than the other ranks.
    Odd,
}

/// A world's end at a step edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// For people.
    pub why: String,
    /// What comes after it.
    pub then: Then,
}

/// What comes after a world that was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The end of the run.
    End,
    /// Another world, once it may form.
    Form,
}

/// A world, as far as a coordinator that goes on with it has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldRecord {
    /// Its number.
    pub generation: Generation,
    /// What it trains on.
    pub data: DataSet,
    /// The state that it goes on from.
    pub start: TrainingState,
    /// Its members, in rank order.
    pub members: Vec<Place>,
}

/// One rank of a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which process.
    pub worker: WorkerUid,
    /// Its slot.
    pub slot: Slot,
    /// Its host, for people.
    pub host: String,
    /// Lanes dealt to it.
    pub lanes: LaneRange,
}

/// How far a world is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Which world.
    pub generation: Generation,
    /// First step that is not planned.
    pub until: Step,
    /// Whether the world ends there, since its members change.
    pub regroup: bool,
    /// Steps applied by then, as far as reports tell.
    pub step: Step,
    /// Global batches consumed by then.
    pub cursor: Cursor,
}

/// What all records of a run amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The newest world.
    pub(crate) last: Option<LastWorld>,
    /// Newest checkpoint.
    pub(crate) checkpoint: Option<Step>,
    /// Workers that were sent away for good.
    pub(crate) banned: BTreeMap<WorkerUid, Banned>,
}

/// The newest world that the journal knows of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastWorld {
    pub(crate) record: WorldRecord,
    pub(crate) planned: Planned,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) over: bool,
}

impl Memory {
    /// Takes in the next record.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::World(record) => {
                let planned = Planned::nothing_of(&record);
                self.last = Some(LastWorld { record, planned, stopping: None, over: false });
            }
            Record::Planned(planned) => {
                if let Some(last) = self.last(planned.generation) {
                    last.planned = planned;
                }
            }
            Record::Stopping(generation, stopping) => {
                if let Some(last) = self.last(generation) {
                    last.stopping = Some(stopping);
                }
            }
            Record::Ended(generation) => {
                if let Some(last) = self.last(generation) {
                    last.over = true;
                }
            }
            Record::Checkpoint(step) => self.checkpoint = self.checkpoint.max(Some(step)),
            Record::Banned(worker, why) => {
                self.banned.insert(worker, why);
            }
        }
    }

    /// Newest world that was ever announced; 0: none.
    pub fn generation(&self) -> Generation {
        self.last.as_ref().map_or(Generation(0), |last| last.record.generation)
    }

    fn last(&mut self, generation: Generation) -> Option<&mut LastWorld> {
        self.last.as_mut().filter(|last| last.record.generation == generation)
    }
}

impl FromIterator<Record> for Memory {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        records.into_iter().fold(Self::default(), |mut memory, record| {
            memory.apply(record);
            memory
        })
    }
}

impl Planned {
    fn nothing_of(world: &WorldRecord) -> Self {
        let (step, cursor) = (world.start.step, world.start.cursor);
        Self { generation: world.generation, until: step, regroup: false, step, cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_world_is_remembered_and_that_it_is_over() {
        let planned = Planned { until: Step(8), ..Planned::nothing_of(&world(2)) };
        let records = [Record::World(world(1)), Record::World(world(2)), Record::Planned(planned)];
        let mut memory: Memory = records.into_iter().collect();
        assert_eq!(memory.generation(), Generation(2));
        let mut last = LastWorld { record: world(2), planned, stopping: None, over: false };
        assert_eq!(memory.last, Some(last.clone()));
        let stopping = Stopping { why: "the operator asked for it".into(), then: Then::End };
        memory.apply(Record::Stopping(Generation(2), stopping.clone()));
        memory.apply(Record::Ended(Generation(2)));
        (last.stopping, last.over) = (Some(stopping), true);
        assert_eq!(memory.last, Some(last));
    }

    #[test]
    fn records_of_an_older_world_change_nothing_of_the_present_one() {
        let late = Planned { until: Step(9), ..Planned::nothing_of(&world(1)) };
        let records =
            [Record::World(world(2)), Record::Planned(late), Record::Ended(Generation(1))];
        let memory: Memory = records.into_iter().collect();
        assert_eq!(memory, [Record::World(world(2))].into_iter().collect());
    }

    fn world(generation: u64) -> WorldRecord {
        WorldRecord {
            generation: Generation(generation),
            data: DataSet { fingerprint: "f".into(), samples: 1000, classes: 0 },
            start: TrainingState::INITIAL,
            members: Vec::new(),
        }
    }
}
