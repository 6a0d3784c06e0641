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

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstep_collective::{AbortHandle, CollectiveError, HostListener};
use lockstep_data::{DataError, Dataset, LoadedBatch, Loader, LoaderConfig, Order as SampleOrder};
use lockstep_nn::{Byol, Communicators, Outcome, Rates, Report, Views, step};
use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Cursor, Digest, Generation, Rank, Step};
use lockstep_proto::{
    Enlist, Goodbye, StepPlan, StepReport, StepReports, TrainingState, Welcome, WorkerMessage,
    World, WorldEnded,
};
use tch::Device;

use crate::archive::Archive;
use crate::audit::{self, Audit};
use crate::border::{Order, TrainerEnd};
use crate::checkpoint::{Checkpoint, CheckpointError, Meta, Snapshot};
use crate::ending::{Ended, StepError, TrainerError};
use crate::meters::Meters;
use crate::{engine, odd_samples, online_knn, world};

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
}

/// Model and place in the run.
pub(crate) struct Trainer {
    equipment: Equipment,
    end: TrainerEnd,
    run_id: String,
    config: RunConfig,
    model: Byol,
    step: Step,
    cursor: Cursor,
    /// Nothing but what the seed makes.
    fresh: bool,
    /// Newest world that it has left.
    ended: Generation,
    archive: Archive,
}

/// Waits for the first welcome, then trains until told to quit.
pub(crate) fn run(equipment: Equipment, mut end: TrainerEnd) -> Result<(), TrainerError> {
    let _no_grad = tch::no_grad_guard(); // layers are explicit: nothing here is recorded for autograd
    while let Some(order) = end.orders.blocking_recv() {
        match order {
            Order::Welcomed(welcome) => return Trainer::new(equipment, end, *welcome)?.run(),
            Order::Quit => break,
            Order::Train(..) | Order::Plan(_) | Order::Save(_) | Order::Abort(..) => {}
        }
    }
    Ok(())
}

impl Trainer {
    /// Builds the model and loads the newest checkpoint of this run, if there is one.
    fn new(equipment: Equipment, end: TrainerEnd, welcome: Welcome) -> Result<Self, TrainerError> {
        let Welcome { run_id, config, .. } = welcome;
        let classes = engine::classes(&equipment.dataset);
        let spec = engine::model_spec(&config, classes, equipment.device);
        let mut model = Byol::new(spec, config.run.seed);
        let (mut step, mut cursor) = (Step(0), Cursor(0));
        let newest =
            equipment.checkpoints.as_deref().map(Checkpoint::newest).transpose()?.flatten();
        let fresh = newest.is_none();
        if let Some(checkpoint) = newest {
            checkpoint.check(&run_id, &equipment.dataset.manifest().fingerprint(), &config)?;
            checkpoint.load_into(&mut model)?;
            (step, cursor) = (Step(checkpoint.meta().step), Cursor(checkpoint.meta().cursor));
            tracing::info!(step = step.0, path = %checkpoint.path().display(), "resuming");
        }
        let archive = Archive::new(equipment.checkpoints.clone(), &config.checkpoint);
        let ended = Generation(0);
        Ok(Self { equipment, end, run_id, config, model, step, cursor, fresh, ended, archive })
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
                    let ended = self.train(&world, &abort)?;
                    if self.say_how_it_ended(world.generation, ended) {
                        break;
                    }
                }
                Order::Plan(_) | Order::Save(_) | Order::Abort(..) => {} // of a world that is over
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
        self.end.shared.progress(generation, world.start.step.0, 0);
        let mut comm = match self.join(world, abort)? {
            Ok(comm) => comm,
            Err(error) => return Ok(Ended::Failed(error)),
        };
        (self.step, self.cursor, self.fresh) = (world.start.step, world.start.cursor, false);
        tracing::info!(ranks = world.members.len(), step = self.step.0, "world formed");
        let mut loader = self.start_loader(world)?;
        let mut plans = VecDeque::new();
        while self.step.0 < world.total_steps {
            let plan = match self.next_plan(world, &mut plans) {
                Ok(plan) => plan,
                Err(ended) => return Ok(ended),
            };
            match self.one_step(world, plan, &mut loader, &mut comm) {
                Ok(Edge::Go) => {}
                Ok(Edge::Stop) => {
                    self.save_now(world)?;
                    return Ok(Ended::Stopped);
                }
                Ok(Edge::Regroup) => return Ok(Ended::Stopped),
                Err(StepError::Collective(error)) => return Ok(Ended::Failed(error)),
                Err(StepError::Data(error)) => return Err(error.into()),
            }
        }
        self.save_now(world)?;
        Ok(Ended::Complete)
    }

    /// Connects and takes over the state. The inner error is a failed collective.
    fn join(
        &mut self,
        world: &World,
        abort: &AbortHandle,
    ) -> Result<Result<Communicators, CollectiveError>, TrainerError> {
        if self.equipment.device.is_cuda() && world.members.len() > 1 {
            return Err(TrainerError::NoGpuCollectives);
        }
        let timeout = Duration::from_secs(self.config.collective.timeout_s.into());
        let listener = &self.equipment.listener;
        let joined =
            world::connect(listener, &self.run_id, world, abort, timeout).and_then(|mut comm| {
                Ok((world::adopt_state(&mut self.model, world, &mut comm)?, comm))
            });
        match joined {
            Ok((odd, comm)) if odd.is_empty() => Ok(Ok(comm)),
            Ok((odd, _)) => Err(TrainerError::StateDiffers(odd)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn start_loader(&self, world: &World) -> Result<Loader, DataError> {
        let config = &self.config;
        let lanes = world.members[world.rank.0 as usize].lanes;
        let sizes = self.equipment.dataset.manifest().shard_sizes();
        Loader::start(
            Arc::clone(&self.equipment.dataset),
            SampleOrder::new(&sizes, engine::order_config(config))?,
            engine::view_recipe(config),
            LoaderConfig {
                seed: config.run.seed,
                lanes: lanes.first..lanes.first + lanes.count,
                first_cursor: self.cursor.0,
                threads: self.equipment.loader_threads,
                batches_ahead: 2,
            },
        )
    }

    /// The plan of the present step; waits for the coordinator only when no window is left.
    fn next_plan(
        &mut self,
        world: &World,
        plans: &mut VecDeque<StepPlan>,
    ) -> Result<StepPlan, Ended> {
        let generation = world.generation;
        loop {
            while plans.front().is_some_and(|plan| plan.step < self.step) {
                plans.pop_front();
            }
            let order = match plans.front() {
                Some(plan) => match self.end.orders.try_recv() {
                    Ok(order) => order,
                    Err(_) => return Ok(*plan),
                },
                None => self.end.orders.blocking_recv().unwrap_or(Order::Quit),
            };
            match order {
                Order::Plan(window) if window.generation == generation => {
                    plans.extend(window.steps);
                }
                Order::Save(wanted) if wanted == generation => self.save(world),
                Order::Abort(aborted, reason) if aborted == generation => {
                    return Err(Ended::Aborted(reason));
                }
                Order::Welcomed(_) => {
                    return Err(Ended::Aborted("the coordinator has started again".into()));
                }
                Order::Quit => return Err(Ended::Quit),
                Order::Plan(_) | Order::Save(_) | Order::Abort(..) | Order::Train(..) => {}
            }
        }
    }

    /// One batch through the model, and what is due behind it.
    #[expect(clippy::disallowed_methods, reason = "the trainer is a shell: it times its steps")]
    fn one_step(
        &mut self,
        world: &World,
        plan: StepPlan,
        loader: &mut Loader,
        comm: &mut Communicators,
    ) -> Result<Edge, StepError> {
        let started = Instant::now();
        let batch = {
            let _span = tracing::info_span!("data").entered();
            loader.next_batch()?
        };
        let data_wait = started.elapsed();
        debug_assert_eq!(batch.cursor, self.cursor.0, "the loader follows the cursor");
        let views = self.views(&batch);
        let rates = Rates { learning_rate: plan.learning_rate, decay: plan.decay };
        let stop = self.end.shared.wants_stop(world.generation);
        let audit = Audit::begin(&self.config.audit, (plan.step, world.rank), &mut self.model);
        let outcome = step(&mut self.model, &views, rates, stop, comm)?;

        let (report, applied) = match outcome {
            Outcome::Applied(report) => (report, true),
            Outcome::Skipped(report) => (report, false),
        };
        if let Some(audit) = audit.filter(|_| applied) {
            let config = &self.config;
            let facts = audit::Facts { config, world, plan, batch: &batch, loss: report.loss };
            audit.finish(&mut self.model, &facts);
        }
        self.cursor.0 += 1;
        self.step.0 += u64::from(applied);
        let edge = match report.stop {
            true => Edge::Stop,
            false if applied && plan.regroup => Edge::Regroup,
            false => Edge::Go,
        };
        let knn = if applied { self.knn(world, comm)? } else { None };
        let timing = (started.elapsed(), data_wait);
        self.report(world.generation, (plan.step, applied), &report, (&batch, timing), knn);
        self.end.shared.progress(world.generation, self.step.0, comm.gradients.sequence());
        self.equipment.meters.step(self.step.0, batch.sample_ids.len(), timing);
        if applied
            && plan.checkpoint
            && !matches!(edge, Edge::Stop)
            && self.step.0 < world.total_steps
        {
            self.save(world);
        }
        self.archive.tell(&self.end);
        loader.recycle(batch);
        Ok(edge)
    }

    fn views(&self, batch: &LoadedBatch) -> Views {
        let labels: Vec<u32> = batch.labels.iter().map(|label| label.0).collect();
        let pixels = [batch.view_one.as_slice(), batch.view_two.as_slice()];
        Views::new(pixels, &labels, self.config.data.image_size, self.model.spec())
    }

    /// kNN accuracy, when it is due: every rank looks at a part of the images.
    fn knn(&self, world: &World, comm: &mut Communicators) -> Result<Option<f64>, StepError> {
        let every = self.config.knn.every_steps;
        let due = every > 0
            && self.step.0.is_multiple_of(every)
            && engine::classes(&self.equipment.dataset) > 0;
        if !due {
            return Ok(None);
        }
        let place = (world.rank.0, u32::try_from(world.members.len()).expect("worlds are small"));
        let (dataset, comm) = (&self.equipment.dataset, comm.gradients.as_mut());
        online_knn::accuracy(&self.model, dataset, &self.config, place, comm).map(Some)
    }

    fn report(
        &self,
        generation: Generation,
        (step, applied): (Step, bool),
        report: &Report,
        (batch, (duration, data_wait)): (&LoadedBatch, (Duration, Duration)),
        knn_accuracy: Option<f64>,
    ) {
        let every = self.config.control.digest_every;
        let due = applied && every > 0 && self.step.0.is_multiple_of(every);
        odd_samples::warn_of_replaced(batch);
        if !applied {
            odd_samples::warn_of_skipped(step, batch);
        }
        let report = StepReport {
            step,
            cursor: Cursor(batch.cursor),
            applied,
            loss: report.loss,
            z_std: report.z_std,
            images: u32::try_from(batch.sample_ids.len()).expect("batches are small"),
            duration,
            data_wait,
            probe_loss: report.probe.map(|(loss, _)| loss),
            probe_accuracy: report.probe.map(|(_, accuracy)| accuracy),
            knn_accuracy,
            arrival_wait: None,
            digest: due.then(|| self.digest()),
            replaced_samples: batch.replaced.iter().map(|replaced| replaced.wanted.0).collect(),
        };
        self.end.say(WorkerMessage::Reports(StepReports { generation, reports: vec![report] }));
    }

    fn digest(&self) -> Digest {
        Digest(self.model.digest(self.step.0, self.cursor.0))
    }

    fn state(&self) -> TrainingState {
        TrainingState { step: self.step, cursor: self.cursor, digest: self.digest() }
    }

    /// Rank 0 saves the state; training goes on while it is written.
    fn save(&mut self, world: &World) {
        if world.rank != Rank(0) {
            return;
        }
        let meta = Meta {
            format: 0,
            run_id: self.run_id.clone(),
            step: self.step.0,
            cursor: self.cursor.0,
            total_steps: world.total_steps,
            classes: engine::classes(&self.equipment.dataset),
            dataset: self.equipment.dataset.manifest().fingerprint(),
            digest: self.digest().0,
            checksum: 0,
            config: self.config.clone(),
        };
        self.archive.save(Snapshot::take(&self.model, meta), world.generation, &self.end);
    }

    /// As [`Trainer::save`], and waits until it is on disk: nobody is told that a world has ended well
    /// before its last state is safe.
    fn save_now(&mut self, world: &World) -> Result<(), CheckpointError> {
        self.save(world);
        self.archive.finish(&self.end)
    }

    fn enlist(&self) {
        let state = (!self.fresh).then(|| self.state());
        let collective_address = self.equipment.advertised;
        let ended = self.ended;
        self.end.say(WorkerMessage::Enlist(Enlist { collective_address, state, ended }));
    }

    /// Tells the coordinator, and enlists again; true when the process is to end.
    fn say_how_it_ended(&mut self, generation: Generation, ended: Ended) -> bool {
        let Some((reason, detail, culprit)) = ended.for_the_coordinator() else { return true };
        tracing::info!(?reason, detail, step = self.step.0, "world ended");
        self.ended = generation;
        self.end.shared.world_ended();
        self.end.say(WorkerMessage::WorldEnded(WorldEnded { generation, reason, detail, culprit }));
        if self.end.shared.wants_leave() {
            let reason = "asked to leave".to_owned();
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

/// What follows a step.
enum Edge {
    Go,
    /// Out of the world, with a checkpoint.
    Stop,
    /// Out of the world and into the next, which others join.
    Regroup,
}
