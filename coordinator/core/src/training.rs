//! What members report from inside a world.

use lockstep_proto::ids::{Cursor, Rank, Step};
use lockstep_proto::{Heartbeat, StepReport, StepReports, TrainingState};

use crate::core::{Core, State};
use crate::digests::compare;
use crate::event::{Effect, SessionId};
use crate::progress::WorldPace;
use crate::roster::Pace;

impl Core {
    pub(crate) fn heartbeat(&mut self, id: SessionId, heartbeat: Heartbeat) {
        let Some(rank) = self.membership(id, heartbeat.generation) else { return };
        let State::Running(world) = &mut self.state else { return };
        world.beat(rank, heartbeat, self.now);
        self.in_flight(id, heartbeat.step);
    }

    pub(crate) fn reports(&mut self, id: SessionId, reports: &StepReports) {
        let Some(rank) = self.membership(id, reports.generation) else { return };
        for report in &reports.reports {
            self.report(id, rank, report);
            if self.live().is_none() {
                return;
            }
        }
    }

    fn report(&mut self, id: SessionId, rank: Rank, report: &StepReport) {
        let State::Running(world) = &mut self.state else { return };
        if !world.planned().contains(&report.step) {
            let what = format!("reported step {}, which was not planned", report.step.0);
            return self.break_off(id, &what);
        }
        let unreported = &mut world.unreported[rank.0 as usize];
        if report.cursor < *unreported {
            return; // said again
        }
        *unreported = Cursor(report.cursor.0.saturating_add(1));
        world.moved = self.now;
        if let Some(wait) = report.arrival_wait {
            world.arrivals.add(report.cursor, rank, wait);
        }
        if let Some(session) = self.roster.get_mut(id) {
            session.pace = Pace::of(report);
        }
        if report.applied {
            self.in_flight(id, Step(report.step.0 + 1));
        }
        self.progress.replaced_samples += report.replaced_samples.len() as u64;
        if rank == Rank(0) {
            self.lead_report(report);
        }
        if let Some(digest) = report.digest {
            let (step, cursor) = (Step(report.step.0 + 1), Cursor(report.cursor.0 + 1));
            self.compare_digest(rank, TrainingState { step, cursor, digest });
        }
    }

    /// Rank 0 speaks for all about what is equal on all ranks.
    fn lead_report(&mut self, report: &StepReport) {
        let pace = self.world_pace();
        let (State::Running(world), Some(plan)) = (&self.state, &self.plan) else { return };
        if let Some(applied) = self.progress.report(plan, world.generation(), report, pace) {
            self.emit(Effect::Applied(applied));
        }
        self.end_if_not_finite(report);
    }

    /// Weights that are no numbers any more stay so: the run ends once enough steps in a row were skipped.
    fn end_if_not_finite(&mut self, report: &StepReport) {
        let skipped = self.progress.skipped_in_a_row;
        if skipped < self.settings.config.control.max_skipped_steps {
            return;
        }
        let (step, last) = (report.step.0, report.cursor.0);
        let first = last.saturating_add(1).saturating_sub(skipped.into());
        self.give_up(
            Vec::new(),
            format!(
                "{skipped} steps in a row were not finite: step {step}, tried with global batches \
                 {first} to {last}; lower `schedule.base_learning_rate`, or look at the samples of \
                 these batches, which the log of each worker names, and resume from a checkpoint"
            ),
        );
    }

    fn world_pace(&self) -> WorldPace {
        WorldPace {
            global_batch: self.settings.config.schedule.global_batch,
            data_wait_ratio: self.worst_data_wait(),
        }
    }

    pub(crate) fn worst_data_wait(&self) -> f64 {
        let members = self.roster.by_slot().filter(|(_, session)| session.rank().is_some());
        members.map(|(_, session)| session.pace.data_wait_ratio).fold(0.0, f64::max)
    }

    /// Compares the states of all ranks behind the same batch, once they are in. The run goes on from that of more than
    /// half of the ranks; where there is none, nobody knows which is right.
    pub(crate) fn compare_digest(&mut self, rank: Rank, state: TrainingState) {
        let State::Running(world) = &mut self.state else { return };
        let Some(digests) = world.digests.add(state.cursor, rank, state.digest) else { return };
        let Some(drift) = compare(&digests) else { return };
        let odd: Vec<_> = drift.odd.iter().map(|rank| rank.0.to_string()).collect();
        let found: Vec<_> =
            drift.found.iter().map(|(digest, count)| format!("{digest:016x} × {count}")).collect();
        let found = format!(
            "ranks hold different states after step {}: rank {} differs (digests: {})",
            state.step.0.saturating_sub(1),
            odd.join(", "),
            found.join(", ")
        );
        if drift.majority {
            self.put_out_to_dump(drift.odd, &format!("{found}; check the memory of that machine"));
        } else {
            let advice = "resume from the last checkpoint, and check the memory of these machines";
            self.give_up(drift.odd, format!("{found}, and none is that of a majority; {advice}"));
        }
    }

    /// Notes the step that a member works on, and sends more of the plan if it is due.
    pub(crate) fn in_flight(&mut self, id: SessionId, step: Step) {
        let State::Running(world) = &mut self.state else { return };
        // Whatever a worker says, it cannot be further than its plan.
        let step = step.min(world.planned().end);
        if let Some(session) = self.roster.get_mut(id) {
            session.step = step;
        }
        if step > world.newest {
            world.newest = step;
            let generation = world.generation();
            self.note_recovery(generation);
            self.feed();
        }
    }
}
