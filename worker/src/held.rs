//! The training state that this rank holds, and how it takes over that of another.
//!
//! It is whole at any time: a rank that loses its peers while it takes over a state goes back to its own,
//! so that whatever it enlists with is a state that training went through.

use std::path::Path;

use lockstep_collective::{CollectiveError, Rank};
use lockstep_data::Dataset;
use lockstep_nn::{Byol, Communicators};
use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Cursor, Digest, Step};
use lockstep_proto::{TrainingState, World};
use tch::{Device, Tensor};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::engine;

/// Model and place in the run.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) model: Byol,
    pub(crate) step: Step,
    pub(crate) cursor: Cursor,
    /// Nothing but what the seed makes.
    fresh: bool,
}

impl Held {
    /// The newest checkpoint of this run, or else what the seed makes.
    pub(crate) fn load(
        (run_id, config): (&str, &RunConfig),
        dataset: &Dataset,
        checkpoints: Option<&Path>,
        device: Device,
    ) -> Result<Self, CheckpointError> {
        let spec = engine::model_spec(config, engine::classes(dataset), device);
        let mut model = Byol::new(spec, config.run.seed);
        let newest = checkpoints.map(Checkpoint::newest).transpose()?.flatten();
        let Some(checkpoint) = newest else {
            return Ok(Self { model, step: Step(0), cursor: Cursor(0), fresh: true });
        };
        checkpoint.check(run_id, &dataset.manifest().fingerprint(), config)?;
        checkpoint.load_into(&mut model)?;
        let (step, cursor) = (Step(checkpoint.meta().step), Cursor(checkpoint.meta().cursor));
        tracing::info!(step = step.0, path = %checkpoint.path().display(), "resuming");
        Ok(Self { model, step, cursor, fresh: false })
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.model.digest(self.step.0, self.cursor.0))
    }

    pub(crate) fn state(&self) -> TrainingState {
        TrainingState { step: self.step, cursor: self.cursor, digest: self.digest() }
    }

    /// What to enlist with: `None` where every other worker could make the same from the seed.
    pub(crate) fn to_enlist(&self) -> Option<TrainingState> {
        (!self.fresh).then(|| self.state())
    }

    /// One more batch was used, and made a step or did not.
    pub(crate) fn advance(&mut self, applied: bool) {
        self.cursor.0 += 1;
        self.step.0 += u64::from(applied);
    }

    /// Makes the state of the world's source that of every rank, and compares digests. Nothing is sent where all
    /// hold it already, which is the rule behind a failure.
    ///
    /// Returns the ranks whose state is not the one that was announced: none, unless memory or code is broken.
    pub(crate) fn adopt(
        &mut self,
        world: &World,
        comm: &mut Communicators,
    ) -> Result<Vec<Rank>, CollectiveError> {
        let (wanted, behind) = compare(world, self.digest(), comm)?;
        if world.start != TrainingState::INITIAL && wanted != world.start.digest {
            return Ok(vec![Rank(world.state_source.0)]);
        }
        let mut odd = Vec::new();
        if !behind.is_empty() {
            let own = behind.contains(&comm.gradients.rank()).then(|| self.copy());
            let taken = self.take_over(world, comm);
            let whole = matches!(&taken, Ok(odd) if odd.is_empty());
            if let Some(own) = own.filter(|_| !whole) {
                self.restore(&own);
            }
            odd = taken?;
        }
        if odd.is_empty() {
            (self.step, self.cursor, self.fresh) = (world.start.step, world.start.cursor, false);
        }
        Ok(odd)
    }

    fn take_over(
        &mut self,
        world: &World,
        comm: &mut Communicators,
    ) -> Result<Vec<Rank>, CollectiveError> {
        self.model.broadcast_state(comm, Rank(world.state_source.0))?;
        let digest = self.model.digest(world.start.step.0, world.start.cursor.0);
        compare(world, Digest(digest), comm).map(|(_, odd)| odd)
    }

    /// A copy in host memory, which a device may be short of.
    fn copy(&self) -> Vec<Tensor> {
        self.model.state().map(|(_, flat)| flat.to_device(Device::Cpu).copy()).into()
    }

    fn restore(&mut self, copy: &[Tensor]) {
        for ((_, flat), own) in self.model.state_mut().into_iter().zip(copy) {
            flat.copy_(own);
        }
    }
}

/// The digest of the world's source, and the ranks that have another; alike on all ranks.
fn compare(
    world: &World,
    digest: Digest,
    comm: &mut Communicators,
) -> Result<(Digest, Vec<Rank>), CollectiveError> {
    let digests = comm.gradients.all_gather(&digest.0.to_le_bytes())?;
    let wanted = &digests[world.state_source.0 as usize];
    let odd = (0..).zip(&digests).filter(|(_, digest)| *digest != wanted);
    let odd = odd.map(|(rank, _)| Rank(rank)).collect();
    let wanted = u64::from_le_bytes(wanted[..].try_into().expect("every rank sends eight bytes"));
    Ok((Digest(wanted), odd))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use lockstep_collective::{
        AbortHandle, Collective, HostListener, Pending, Reduction, Region, Values, WorldSpec,
    };
    use lockstep_proto::ids::{self, Generation, Slot, WorkerUid};
    use lockstep_proto::{LaneRange, Member, Secret};

    use super::*;
    use crate::testing::{Color, packed, tiny_config};
    use crate::world::communicators;

    /// Loses its peers behind so many broadcasts.
    struct Breaking {
        inner: Box<dyn Collective>,
        left: usize,
    }

    impl Collective for Breaking {
        fn rank(&self) -> Rank {
            self.inner.rank()
        }
        fn world(&self) -> u32 {
            self.inner.world()
        }
        fn start_all_reduce(
            &mut self,
            region: Region,
            reduction: Reduction,
        ) -> Result<Pending, CollectiveError> {
            self.inner.start_all_reduce(region, reduction)
        }
        fn wait(&mut self, pending: Pending) -> Result<(), CollectiveError> {
            self.inner.wait(pending)
        }
        fn all_reduce(
            &mut self,
            values: Values<'_>,
            reduction: Reduction,
        ) -> Result<(), CollectiveError> {
            self.inner.all_reduce(values, reduction)
        }
        fn broadcast(&mut self, region: Region, root: Rank) -> Result<(), CollectiveError> {
            if self.left == 0 {
                self.inner.abort_handle().abort();
            }
            self.left = self.left.saturating_sub(1);
            self.inner.broadcast(region, root)
        }
        fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
            self.inner.all_gather(mine)
        }
        fn barrier(&mut self) -> Result<(), CollectiveError> {
            self.inner.barrier()
        }
        fn sequence(&self) -> u64 {
            self.inner.sequence()
        }
        fn abort_handle(&self) -> AbortHandle {
            self.inner.abort_handle()
        }
    }

    /// A rank with the state of `step`, which no other step has.
    fn held(dataset: &Dataset, step: u64) -> Held {
        let config = tiny_config();
        let mut held = Held::load(("tiny", &config), dataset, None, Device::Cpu).unwrap();
        for (_, flat) in held.model.state_mut() {
            let _moved = flat.g_add_scalar_(i64::try_from(step).unwrap());
        }
        (held.step, held.cursor, held.fresh) = (Step(step), Cursor(step), step == 0);
        held
    }

    /// Two ranks, of whom rank 0 is the source of `start`.
    fn in_world_of_two<T: Send>(
        start: TrainingState,
        work: impl Fn(&World, Communicators) -> T + Sync,
    ) -> [T; 2] {
        let bind = |_| HostListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listeners = [0, 1].map(bind);
        let member = |listener: &HostListener| Member {
            worker: WorkerUid("w".into()),
            slot: Slot(0),
            collective_address: listener.local_addr(),
            lanes: LaneRange { first: 0, count: 1 },
        };
        let world = World {
            generation: Generation(1),
            rank: ids::Rank(0),
            members: listeners.iter().map(member).collect(),
            secret: Secret([1; 32]),
            state_source: ids::Rank(0),
            start,
            total_steps: 10,
        };
        let rank = |rank: u32| {
            let spec = WorldSpec {
                run_id: "tiny".into(),
                generation: 1,
                rank: Rank(rank),
                peers: listeners.iter().map(HostListener::local_addr).collect(),
                secret: [1; 32].into(),
                connect_deadline: Duration::from_mins(1),
                op_deadline: Duration::from_mins(1),
                channels: 2,
            };
            let listener = &listeners[rank as usize];
            let comm = communicators(listener, &spec, &AbortHandle::new()).unwrap();
            work(&world, comm)
        };
        thread::scope(|scope| {
            [0, 1].map(|r| scope.spawn(move || rank(r))).map(|t| t.join().unwrap())
        })
    }

    #[test]
    fn a_rank_that_is_behind_takes_over_the_state_of_the_source() {
        let packed = packed(16, Color::Gray);
        let start = held(&packed.open(), 5).state();
        let states = in_world_of_two(start, |world, mut comm| {
            let mut held = held(&packed.open(), 5 - u64::from(comm.gradients.rank().0));
            assert_eq!(held.adopt(world, &mut comm).unwrap(), []);
            held.to_enlist()
        });
        assert_eq!(states, [Some(start); 2]);
    }

    #[test]
    fn ranks_that_hold_the_same_state_compare_digests_and_send_nothing_else() {
        let packed = packed(16, Color::Gray);
        let start = held(&packed.open(), 5).state();
        let operations = in_world_of_two(start, |world, mut comm| {
            let mut held = held(&packed.open(), 5);
            assert_eq!(held.adopt(world, &mut comm).unwrap(), []);
            comm.gradients.sequence()
        });
        assert_eq!(operations, [1; 2]);
    }

    #[test]
    fn a_rank_whose_source_dies_half_way_keeps_its_own_state() {
        let packed = packed(16, Color::Gray);
        let start = held(&packed.open(), 5).state();
        in_world_of_two(start, |world, mut comm| {
            let mut held = held(&packed.open(), 5 - u64::from(comm.gradients.rank().0));
            let before = held.state();
            if comm.gradients.rank() == Rank(0) {
                held.adopt(world, &mut comm).unwrap_err();
            } else {
                comm.gradients = Box::new(Breaking { inner: comm.gradients, left: 2 });
                held.adopt(world, &mut comm).unwrap_err();
                assert_ne!(held.model.digest(5, 5), start.digest.0);
            }
            assert_eq!(held.to_enlist(), Some(before));
        });
    }

    #[test]
    fn a_source_that_holds_another_state_than_announced_is_named_by_all() {
        let packed = packed(16, Color::Gray);
        let start = held(&packed.open(), 5).state();
        let odd = in_world_of_two(start, |world, mut comm| {
            held(&packed.open(), 6).adopt(world, &mut comm).unwrap()
        });
        assert_eq!(odd, [vec![Rank(0)], vec![Rank(0)]]);
    }
}
