//! One batch through the model, and what is due behind it.

use std::time::{Duration, Instant};

use lockstep_data::LoadedBatch;
use lockstep_nn::{Communicators, Outcome, Rates, Report, step};
use lockstep_proto::ids::{Cursor, Digest};
use lockstep_proto::{
    Activity, StepPlan, StepReport, StepReports, TrainingState, WorkerMessage, World,
};

use crate::applied_log::Move;
use crate::audit::{self, Audit};
use crate::ending::StepError;
use crate::feed::{Fed, Feed};
use crate::trainer::Trainer;
use crate::{engine, odd_samples, online_knn};

/// What follows a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The next step.
    Go,
    /// The end of the world: some rank asked for it.
    Stop,
    /// The end of the world: the plan says so.
    Regroup,
}

/// A batch that was used.
struct Used {
    batch: LoadedBatch,
    report: Report,
    applied: bool,
    /// Of the state it led to, where it was taken.
    digest: Option<Digest>,
    data_wait: Duration,
    arrival_wait: Option<Duration>,
}

impl Trainer {
    #[expect(clippy::disallowed_methods, reason = "the trainer is a shell: it times its steps")]
    pub(crate) fn one_step(
        &mut self,
        world: &World,
        plan: StepPlan,
        feed: &mut Feed,
        comm: &mut Communicators,
    ) -> Result<Edge, StepError> {
        let started = Instant::now();
        let fed = {
            let _span = tracing::info_span!("data").entered();
            feed.next()?
        };
        let data_wait = started.elapsed();
        let used = self.use_batch(world, plan, (fed, data_wait), comm)?;
        // Told in any case: the step is applied, whatever becomes of the evaluation behind it.
        let knn = if used.applied { self.knn(world, comm) } else { Ok(None) };
        let duration = started.elapsed();
        self.tell(world, plan, &used, (duration, knn.as_ref().ok().copied().flatten()));
        self.equipment.meters.step(
            self.held.step.0,
            used.batch.sample_ids.len(),
            (duration, data_wait),
        );
        let edge = edge(plan, &used);
        let last = self.held.step.0 == world.total_steps;
        if used.applied && plan.checkpoint && edge != Edge::Stop && !last {
            self.save(world);
        }
        self.archive.tell(&self.end);
        feed.recycle(used.batch);
        knn.map(|_| edge)
    }

    /// Up to the state behind the step.
    fn use_batch(
        &mut self,
        world: &World,
        plan: StepPlan,
        (Fed { batch, views }, data_wait): (Fed, Duration),
        comm: &mut Communicators,
    ) -> Result<Used, StepError> {
        let cursor = self.held.cursor;
        debug_assert_eq!(batch.cursor, cursor.0, "the loader follows the cursor");
        let rates = Rates { learning_rate: plan.learning_rate, decay: plan.decay };
        let stop = self.end.shared.wants_stop(world.generation);
        let audit = Audit::begin(&self.config.audit, (plan.step, world.rank), &mut self.held.model);
        let before = self.equipment.applied_log.is_on().then(|| self.held.digest());
        self.equipment.applied_log.used(world, plan.step, &batch);
        self.end.shared.watch.begin_step();
        let outcome = step(&mut self.held.model, &views, rates, stop, comm)?;

        let (report, applied) = match outcome {
            Outcome::Applied(report) => (report, true),
            Outcome::Skipped(report) => (report, false),
        };
        self.held.advance(applied);
        let every = self.config.control.digest_every;
        let due = applied && every > 0 && self.held.step.0.is_multiple_of(every);
        let digest = (due || before.is_some()).then(|| self.held.digest());
        if let (Some(before), Some(after)) = (before, digest) {
            let step = plan.step;
            self.equipment.applied_log.moved(world, Move { step, cursor, applied, before, after });
        }
        if let Some(audit) = audit.filter(|_| applied) {
            let config = &self.config;
            let facts = audit::Facts { config, world, plan, batch: &batch, loss: report.loss };
            audit.finish(&mut self.held.model, &facts);
        }
        let arrival_wait = self.end.shared.watch.arrival_wait();
        let digest = digest.filter(|_| due);
        Ok(Used { batch, report, applied, digest, data_wait, arrival_wait })
    }

    /// kNN accuracy, when it is due: every rank looks at a part of the images.
    fn knn(&self, world: &World, comm: &mut Communicators) -> Result<Option<f64>, StepError> {
        let every = self.config.knn.every_steps;
        let due = every > 0
            && self.held.step.0.is_multiple_of(every)
            && engine::classes(&self.equipment.dataset) > 0;
        if !due {
            return Ok(None);
        }
        self.end.shared.turn_to(Activity::Evaluating);
        let place = (world.rank.0, u32::try_from(world.members.len()).expect("worlds are small"));
        let (dataset, comm) = (&self.equipment.dataset, comm.gradients.as_mut());
        online_knn::accuracy(&self.held.model, dataset, &self.config, place, comm).map(Some)
    }

    /// Reports the step.
    fn tell(
        &self,
        world: &World,
        plan: StepPlan,
        used: &Used,
        (duration, knn_accuracy): (Duration, Option<f64>),
    ) {
        let Used { batch, report, applied, digest, data_wait, arrival_wait } = used;
        let (step, cursor) = (self.held.step, self.held.cursor);
        odd_samples::warn_of_replaced(batch);
        odd_samples::warn_of_cache(batch);
        if !applied {
            odd_samples::warn_of_skipped(plan.step, batch);
        }
        let report = StepReport {
            step: plan.step,
            cursor: Cursor(batch.cursor),
            applied: *applied,
            loss: report.loss,
            z_std: report.z_std,
            images: u32::try_from(batch.sample_ids.len()).expect("batches are small"),
            duration,
            data_wait: *data_wait,
            arrival_wait: *arrival_wait,
            probe_loss: report.probe.map(|(loss, _)| loss),
            probe_accuracy: report.probe.map(|(_, accuracy)| accuracy),
            knn_accuracy,
            digest: *digest,
            replaced_samples: batch.replaced.iter().map(|replaced| replaced.wanted.0).collect(),
        };
        let reports = StepReports { generation: world.generation, reports: vec![report] };
        self.end.say(WorkerMessage::Reports(reports));
        self.end.shared.reach(step);
        if let Some(digest) = *digest {
            self.end.shared.prove(TrainingState { step, cursor, digest });
        }
    }
}

fn edge(plan: StepPlan, used: &Used) -> Edge {
    match (used.report.stop, used.applied && plan.regroup) {
        (true, _) => Edge::Stop,
        (false, true) => Edge::Regroup,
        (false, false) => Edge::Go,
    }
}
