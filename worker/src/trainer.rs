//! The training loop of a worker: the one loop of this process. It runs on a thread of its own.
//!
//! ```text
//!  enlist ──▶ wait for a world ──▶ connect, take over the state ──▶ step, step, step … ──▶ say how it ended
//!     ▲                                                                                        │
//!     └────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A world ends when the run is complete, when the ranks agree to stop, or when a collective fails. In
//! every case the state stays: it is that of the last applied step.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_collective::{AbortHandle, CollectiveError, HostListener};
use lockstep_data::{Dataset, Loader, LoaderConfig, Order as SampleOrder};
use lockstep_nn::Communicators;
use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Generation, Rank};
use lockstep_proto::{
    Activity, Dump, Enlist, Goodbye, StepPlan, Welcome, WorkerMessage, World, WorldEnded,
};
use lockstep_service::telemetry::chain;
use tch::Device;

use crate::applied_log::AppliedLog;
use crate::archive::Archive;
use crate::backend::Backend;
use crate::border::{Order, TrainerEnd};
use crate::checkpoint::{Meta, Snapshot};
use crate::commands::Misuse;
use crate::ending::{Ended, JoinError, StepError, TrainerError};
use crate::feed::Feed;
use crate::held::Held;
use crate::meters::Meters;
use crate::one_step::Edge;
use crate::told::{Told, unless_it_ends};
use crate::{engine, world};

/// Pause between two attempts to save the last state of a world.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// What this process brings along.
#[derive(Debug)]
pub(crate) struct Equipment {
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) checkpoints: Option<PathBuf>,
    pub(crate) device: Device,
    pub(crate) loader_threads: usize,
    pub(crate) listener: HostListener,
    /// Where peers reach `listener`.
    pub(crate) advertised: SocketAddr,
    pub(crate) meters: Arc<Meters>,
    pub(crate) applied_log: AppliedLog,
}

/// One rank of a run.
pub(crate) struct Trainer {
    pub(crate) equipment: Equipment,
    pub(crate) end: TrainerEnd,
    run_id: String,
    pub(crate) config: RunConfig,
    pub(crate) held: Held,
    pub(crate) archive: Archive,
    backend: Backend,
    /// The newest world that this worker was given.
    world: Generation,
}

/// Waits for the first welcome, then trains until told to quit.
pub(crate) fn run(equipment: Equipment, mut end: TrainerEnd) -> Result<(), TrainerError> {
    let _no_grad = tch::no_grad_guard(); // layers are explicit: nothing here is recorded for autograd
    while let Some(order) = end.orders.blocking_recv() {
        match order {
            Order::Welcomed(welcome) => return Trainer::new(equipment, end, *welcome)?.run(),
            Order::Quit | Order::Dump(_) => break,
            Order::Train(..)
            | Order::Communicators(_)
            | Order::Plan(_)
            | Order::Save(_)
            | Order::Abort(..) => {}
        }
    }
    Ok(())
}

impl Trainer {
    /// Builds the model and loads the newest checkpoint of this run, if there is one.
    fn new(equipment: Equipment, end: TrainerEnd, welcome: Welcome) -> Result<Self, TrainerError> {
        let Welcome { run_id, config, .. } = welcome;
        let Equipment { dataset, checkpoints, device, .. } = &equipment;
        let backend = Backend::open(config.collective.backend, *device)?;
        let held = Held::load((&run_id, &config), dataset, checkpoints.as_deref(), *device)?;
        let archive = Archive::new(checkpoints.clone(), &config.checkpoint);
        let world = Generation(0);
        Ok(Self { equipment, end, run_id, config, held, archive, backend, world })
    }

    /// The loop.
    fn run(mut self) -> Result<(), TrainerError> {
        self.enlist();
        while let Some(order) = self.end.orders.blocking_recv() {
            match order {
                Order::Quit => break,
                Order::Welcomed(welcome) => {
                    self.check_unchanged(&welcome)?;
                    self.enlist();
                }
                Order::Train(world, abort) => {
                    self.world = world.generation;
                    self.end.shared.enter(&world);
                    let ended = self.train(&world, &abort)?;
                    self.end.shared.world_ended();
                    if self.say_how_it_ended(world.generation, ended) {
                        break;
                    }
                }
                Order::Dump(dump) => {
                    self.dump(&dump);
                    break;
                }
                // Of a world that is over.
                Order::Communicators(_) | Order::Plan(_) | Order::Save(_) | Order::Abort(..) => {}
            }
        }
        self.archive.finish(&self.end)?;
        Ok(())
    }

    /// Trains in one world, from its start to its end.
    fn train(&mut self, world: &World, abort: &AbortHandle) -> Result<Ended, TrainerError> {
        let generation = world.generation;
        let _span =
            tracing::info_span!("world", generation = generation.0, rank = world.rank.0).entered();
        let mut told = Told::default();
        let mut comm = match self.join(world, abort, &mut told)? {
            Ok(comm) => comm,
            Err(ended) => return Ok(ended),
        };
        self.end.shared.prove(self.held.state());
        let (ranks, backend) = (world.members.len(), self.backend.name());
        tracing::info!(ranks, %backend, step = self.held.step.0, "world formed");
        let mut feed = self.start_feed(world)?;
        while self.held.step.0 < world.total_steps {
            let plan = match self.next_plan(world, &mut told) {
                Ok(plan) => plan,
                Err(ended) => return Ok(ended),
            };
            self.end.shared.turn_to(Activity::Stepping);
            #[cfg(feature = "failpoints")]
            crate::failpoints::at_step_edge(&mut self.held.model);
            match self.one_step(world, plan, &mut feed, &mut comm) {
                Ok(Edge::Go) => {}
                Ok(Edge::Regroup) => return Ok(Ended::Stopped),
                Ok(Edge::Stop) => {
                    self.save_now(world);
                    return Ok(Ended::Stopped);
                }
                Err(StepError::Collective(error)) => return Ok(Ended::Failed(error)),
                Err(StepError::Data(error)) => return Err(error.into()),
            }
        }
        self.save_now(world);
        Ok(Ended::Complete)
    }

    /// Connects and takes over the state. The inner error is a world that did not form.
    fn join(
        &mut self,
        world: &World,
        abort: &AbortHandle,
        told: &mut Told,
    ) -> Result<Result<Communicators, Ended>, TrainerError> {
        let on_gpu = self.equipment.device.is_cuda();
        if on_gpu && matches!(self.backend, Backend::Host) && world.members.len() > 1 {
            return Err(TrainerError::HostOnGpus);
        }
        let comm = match self.connect(world, abort, told) {
            Ok(comm) => comm,
            Err(Ended::NotFormed(JoinError::Collective(CollectiveError::Unusable(why)))) => {
                return Err(Misuse(why).into());
            }
            Err(ended) => return Ok(Err(ended)),
        };
        let mut comm = self.end.shared.watch.over(comm);
        Ok(match self.held.adopt(world, &mut comm) {
            Ok(odd) if odd.is_empty() => Ok(comm),
            Ok(odd) => Err(Ended::NotFormed(JoinError::StateDiffers(odd))),
            Err(error) => Err(Ended::NotFormed(error.into())),
        })
    }

    fn connect(
        &mut self,
        world: &World,
        abort: &AbortHandle,
        told: &mut Told,
    ) -> Result<Communicators, Ended> {
        let not_formed = |error: CollectiveError| Ended::NotFormed(error.into());
        let Equipment { device, listener, .. } = &self.equipment;
        let timeout = Duration::from_secs(self.config.collective.timeout_s.into());
        match &self.backend {
            Backend::Nccl(nccl) if world.members.len() > 1 => {
                if world.rank == Rank(0) {
                    let ids = nccl.make_ids(world.generation).map_err(not_formed)?;
                    self.end.say(WorkerMessage::CommunicatorIds(ids));
                }
                let ids = told.communicators(&mut self.end, world.generation)?;
                nccl.connect((world, &ids), *device, abort, timeout)
            }
            Backend::Nccl(_) | Backend::Host => {
                world::connect(listener, &self.run_id, world, abort, timeout)
            }
        }
        .map_err(not_formed)
    }

    fn start_feed(&self, world: &World) -> Result<Feed, TrainerError> {
        let config = &self.config;
        let lanes = world.members[world.rank.0 as usize].lanes;
        let sizes = self.equipment.dataset.manifest().shard_sizes();
        let loader = Loader::start(
            Arc::clone(&self.equipment.dataset),
            SampleOrder::new(&sizes, engine::order_config(config))?,
            engine::view_recipe(config),
            LoaderConfig {
                seed: config.run.seed,
                lanes: lanes.first..lanes.first + lanes.count,
                first_cursor: self.held.cursor.0,
                threads: self.equipment.loader_threads,
                batches_ahead: 1,
            },
        )?;
        let spec = self.held.model.spec().clone();
        Feed::start(loader, config.data.image_size, spec).map_err(TrainerError::Thread)
    }

    /// The plan of the present step; waits for the coordinator only when no window is left.
    fn next_plan(&mut self, world: &World, told: &mut Told) -> Result<StepPlan, Ended> {
        let generation = world.generation;
        loop {
            let Told { plans, early } = told;
            while plans.front().is_some_and(|plan| plan.step < self.held.step) {
                plans.pop_front();
            }
            let order = match (early.pop_front(), plans.front()) {
                (Some(order), _) => order,
                (None, Some(plan)) => match self.end.orders.try_recv() {
                    Ok(order) => order,
                    Err(_) => return Ok(*plan),
                },
                (None, None) => self.wait_for_order(),
            };
            match unless_it_ends(generation, order)? {
                Order::Plan(window) if window.generation == generation => {
                    // It may begin with steps that were planned before.
                    let known = plans.back().map(|plan| plan.step);
                    plans.extend(window.steps.into_iter().filter(|plan| Some(plan.step) > known));
                }
                Order::Save(wanted) if wanted == generation => self.save(world),
                // Of another world, or heard before.
                Order::Plan(_)
                | Order::Save(_)
                | Order::Abort(..)
                | Order::Communicators(_)
                | Order::Train(..)
                | Order::Welcomed(_)
                | Order::Dump(_)
                | Order::Quit => {}
            }
        }
    }

    /// What the coordinator says next. A worker that is to leave does not wait for more steps.
    fn wait_for_order(&mut self) -> Order {
        self.end.shared.turn_to(Activity::AwaitingPlan);
        if self.end.shared.wants_leave() {
            return Order::Quit;
        }
        self.end.orders.blocking_recv().unwrap_or(Order::Quit)
    }

    /// Rank 0 saves the state; training goes on while it is written.
    pub(crate) fn save(&mut self, world: &World) {
        if world.rank == Rank(0) {
            let snapshot = self.snapshot(world.total_steps);
            self.archive.save(snapshot, world.generation, &self.end);
        }
    }

    fn snapshot(&self, total_steps: u64) -> Snapshot {
        let meta = Meta {
            format: 0,
            run_id: self.run_id.clone(),
            step: self.held.step.0,
            cursor: self.held.cursor.0,
            total_steps,
            classes: engine::classes(&self.equipment.dataset),
            dataset: self.equipment.dataset.manifest().fingerprint(),
            digest: self.held.digest().0,
            checksum: 0,
            config: self.config.clone(),
        };
        Snapshot::take(&self.held.model, meta)
    }

    /// As [`Trainer::save`], and waits until it is on disk: nobody is told that a world has ended well before its last
    /// state is safe. Where that fails, for example on a full disk, it tries again until it is asked to leave.
    #[expect(
        clippy::disallowed_methods,
        reason = "the trainer's own thread, which waits for people"
    )]
    fn save_now(&mut self, world: &World) {
        self.end.shared.turn_to(Activity::Saving);
        self.save(world);
        while let Err(error) = self.archive.finish(&self.end) {
            let error = chain(&error);
            if self.end.shared.wants_leave() {
                return tracing::error!(error, "the last state is not saved");
            }
            tracing::error!(error, again_in = ?SAVE_AGAIN, "the last state is not saved yet");
            std::thread::sleep(SAVE_AGAIN);
            self.save(world);
        }
    }

    /// Leaves a state that differs from that of the other ranks for people to look at, beside the checkpoints.
    fn dump(&mut self, dump: &Dump) {
        let Dump { generation, reason } = dump;
        tracing::error!(generation = generation.0, reason, "this rank's state differs");
        let Some(folder) = &self.equipment.checkpoints else {
            return tracing::warn!("without --checkpoints it is not written");
        };
        let name = format!("odd-generation-{}-{}", generation.0, std::process::id());
        match self.snapshot(0).write(&folder.join(name)) {
            Ok(path) => tracing::warn!(path = %path.display(), "the odd state is written"),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "the odd state is not written");
            }
        }
    }

    fn enlist(&self) {
        self.end.say(WorkerMessage::Enlist(Enlist {
            collective_address: self.equipment.advertised,
            state: self.held.to_enlist(),
            ended: self.world,
            backend: self.backend.name(),
        }));
    }

    /// Tells the coordinator, and enlists again; true when the process is to end.
    fn say_how_it_ended(&mut self, generation: Generation, ended: Ended) -> bool {
        if let Ended::Odd(dump) = &ended {
            self.dump(dump);
        }
        let spoiled = ended.spoils_the_process();
        let Some((reason, detail, culprit)) = ended.for_the_coordinator() else { return true };
        tracing::info!(?reason, detail, step = self.held.step.0, "world ended");
        self.end.say(WorkerMessage::WorldEnded(WorldEnded { generation, reason, detail, culprit }));
        if spoiled || self.end.shared.wants_leave() {
            let reason = if spoiled { "it needs a fresh process" } else { "asked to leave" };
            let reason = reason.to_owned();
            self.end.say(WorkerMessage::Goodbye(Goodbye { reason }));
            return true;
        }
        self.enlist(); // also behind a complete run: another rank may have failed before its end
        false
    }

    fn check_unchanged(&self, welcome: &Welcome) -> Result<(), TrainerError> {
        let differences = self.config.diff(&welcome.config);
        if differences.is_empty() {
            return Ok(());
        }
        let differences: Vec<String> =
            differences.iter().map(|d| format!("{} {} → {}", d.key, d.ours, d.theirs)).collect();
        Err(TrainerError::ConfigChanged(differences.join(", ")))
    }
}
