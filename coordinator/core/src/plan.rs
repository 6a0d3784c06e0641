//! The length of the run, and its steps as they are planned ahead.

use lockstep_proto::config::RunConfig;
use lockstep_proto::ids::{Cursor, Step};
use lockstep_proto::schedule::{Schedule, ScheduleError};
use lockstep_proto::{DataSet, StepPlan};

/// What the first worker's data set fixes for the rest of the run.
#[derive(Debug)]
pub(crate) struct RunPlan {
    pub(crate) data: DataSet,
    schedule: Schedule,
    batches_per_data_epoch: u64,
    checkpoint_every: u64,
}

impl RunPlan {
    /// Fails where the data set does not fill one batch, or the run not one step.
    pub(crate) fn new(config: &RunConfig, data: DataSet) -> Result<Self, ScheduleError> {
        let schedule = Schedule::new(config, data.samples)?;
        // At least 1: the schedule refuses a data set that does not fill one batch.
        let batches_per_data_epoch = data.samples / u64::from(config.schedule.global_batch);
        let checkpoint_every = config.checkpoint.every_steps;
        Ok(Self { data, schedule, batches_per_data_epoch, checkpoint_every })
    }

    /// K.
    pub(crate) fn total_steps(&self) -> u64 {
        self.schedule.total().get()
    }

    /// What is decided about step `step`; the same whoever asks, and in which world.
    pub(crate) fn step(&self, step: Step) -> StepPlan {
        let (decay, learning_rate) = self.schedule.plan(step);
        let done = step.0 + 1;
        let marked = self.checkpoint_every > 0 && done.is_multiple_of(self.checkpoint_every);
        StepPlan {
            step,
            decay: decay.0,
            learning_rate: learning_rate.0,
            checkpoint: marked || done == self.total_steps(),
            regroup: false,
        }
    }

    /// Data epochs in `cursor` global batches; the tail of a data epoch that fills no batch is not read.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 batches")]
    pub(crate) fn data_epoch(&self, cursor: Cursor) -> f64 {
        cursor.0 as f64 / self.batches_per_data_epoch as f64
    }
}

/// Which steps of one world were planned.
#[derive(Debug)]
pub(crate) struct Feed {
    /// First step that was not sent.
    pub(crate) next: Step,
    /// Whether the last step that was sent is the last of this world, since its members change.
    pub(crate) closed: bool,
    window: u64,
}

impl Feed {
    pub(crate) fn new(start: Step, window: u32) -> Self {
        Self { next: start, closed: false, window: window.into() }
    }

    /// The next window, if the step in flight `newest` comes within half a window of the end of
    /// what was sent; `None` while there is enough, and once all is planned.
    pub(crate) fn due(&mut self, plan: &RunPlan, newest: Step) -> Option<Vec<StepPlan>> {
        let enough = newest.0.saturating_add(self.window.div_ceil(2)) < self.next.0;
        let end = self.next.0.saturating_add(self.window).min(plan.total_steps());
        if self.closed || enough || self.next.0 >= end {
            return None;
        }
        let steps = (self.next.0..end).map(|k| plan.step(Step(k))).collect();
        self.next = Step(end);
        Some(steps)
    }

    /// The last step of this world, behind which its members change: the first that was not sent, since nobody can be
    /// further. `None` where the world ends anyway, or the run does.
    pub(crate) fn close(&mut self, plan: &RunPlan) -> Option<StepPlan> {
        if self.closed || self.next.0 + 1 >= plan.total_steps() {
            return None;
        }
        let last = StepPlan { regroup: true, ..plan.step(self.next) };
        self.next.0 += 1;
        self.closed = true;
        Some(last)
    }

    /// What was sent of the steps from `from` on, for a rank that may have missed it.
    pub(crate) fn sent(&self, plan: &RunPlan, from: Step) -> Vec<StepPlan> {
        let last = self.next.0.saturating_sub(1);
        let step = |k| StepPlan { regroup: self.closed && k == last, ..plan.step(Step(k)) };
        (from.0..self.next.0).map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use lockstep_proto::layers::Layers;

    use super::*;

    #[test]
    fn checkpoints_are_marked_every_so_many_steps_and_at_the_end() {
        let plan = plan(25, 10);
        let marked: Vec<_> = (0..25).filter(|&k| plan.step(Step(k)).checkpoint).collect();
        assert_eq!(marked, [9, 19, 24]);
    }

    #[test]
    fn with_no_interval_only_the_last_step_is_a_checkpoint() {
        let plan = plan(25, 0);
        assert_eq!((0..25).filter(|&k| plan.step(Step(k)).checkpoint).collect::<Vec<_>>(), [24]);
    }

    #[test]
    fn the_next_window_is_due_half_a_window_before_the_end_of_the_last() {
        let plan = plan(20, 0);
        let mut feed = Feed::new(Step(2), 8);
        assert_eq!(range(feed.due(&plan, Step(2))), Some((2, 9)));
        assert_eq!(feed.due(&plan, Step(5)), None);
        assert_eq!(range(feed.due(&plan, Step(6))), Some((10, 17)));
        assert_eq!(range(feed.due(&plan, Step(14))), Some((18, 19)));
        assert_eq!(feed.due(&plan, Step(19)), None, "all is planned");
    }

    #[test]
    fn a_window_of_one_step_still_feeds_every_step() {
        let plan = plan(3, 0);
        let mut feed = Feed::new(Step(0), 1);
        for k in 0..3 {
            assert_eq!(range(feed.due(&plan, Step(k))), Some((k, k)));
        }
    }

    #[test]
    fn behind_the_last_step_of_a_world_nothing_is_planned() {
        let plan = plan(20, 0);
        let mut feed = Feed::new(Step(0), 8);
        feed.due(&plan, Step(0)).unwrap();
        let last = feed.close(&plan).unwrap();
        assert_eq!((last.step, last.regroup), (Step(8), true));
        assert_eq!((feed.close(&plan), feed.due(&plan, Step(8))), (None, None));
        let again = feed.sent(&plan, Step(6));
        assert_eq!(again, [plan.step(Step(6)), plan.step(Step(7)), last]);
    }

    #[test]
    fn members_do_not_change_behind_the_last_step_of_the_run() {
        let plan = plan(9, 0);
        let mut feed = Feed::new(Step(0), 8);
        feed.due(&plan, Step(0)).unwrap();
        assert_eq!(feed.close(&plan), None);
    }

    #[test]
    fn the_tail_of_a_data_epoch_is_not_counted() {
        let plan = plan(10, 0);
        assert!((plan.data_epoch(Cursor(15)) - 1.0).abs() < 1e-12, "1,000 samples make 15 batches");
    }

    fn range(steps: Option<Vec<StepPlan>>) -> Option<(u64, u64)> {
        let steps = steps?;
        Some((steps.first()?.step.0, steps.last()?.step.0))
    }

    fn plan(steps: u64, checkpoint_every: u64) -> RunPlan {
        let layers = Layers { preset: Some("tiny".into()), ..Layers::default() };
        let mut config = layers.resolve().unwrap().config;
        config.schedule.steps = steps;
        config.checkpoint.every_steps = checkpoint_every;
        let data = DataSet { fingerprint: "f".into(), samples: 1000, classes: 0 };
        RunPlan::new(&config, data).unwrap()
    }
}
