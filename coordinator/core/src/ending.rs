//! How worlds and runs end.

use lockstep_proto::ids::{Generation, Rank};
use lockstep_proto::server::Refusal;
use lockstep_proto::{
    Abort, CoordinatorMessage, Dismiss, Dump, Exit, Occurrence, Phase, WorldEnd, WorldEnded,
};

use crate::admission::name;
use crate::core::{Core, State, Verdict};
use crate::event::{Effect, SessionId};
use crate::forming::{Call, Forming};
use crate::journal::{Banned, Record};
use crate::roster::Standing;
use crate::world::LiveWorld;

/// Worlds in a row that may fail without a step; then the run fails, since the next would too.
const MAX_FRUITLESS_WORLDS: u32 = 3;

impl Core {
    pub(crate) fn world_ended(&mut self, id: SessionId, ended: &WorldEnded) {
        let Some(rank) = self.membership(id, ended.generation) else { return };
        let Some(session) = self.roster.get_mut(id) else { return };
        session.standing = Standing::Idle;
        session.over = ended.generation;
        if ended.reason == WorldEnd::Failed {
            let reason = format!("{}: {}", name(rank, session), ended.detail);
            return self.fail_world(ended.culprit.into_iter().collect(), &reason);
        }
        let State::Running(world) = &mut self.state else { return };
        world.ends.insert(rank, ended.reason);
        if world.is_over() {
            self.world_over();
        }
    }

    /// All ranks have left the world, none because of a failure.
    fn world_over(&mut self) {
        let State::Running(world) = &self.state else { return };
        let generation = world.generation();
        let reason = match &world.stopping {
            Some(stopping) => stopping.why.clone(),
            None if world.feed.closed => "others join".to_owned(),
            None => String::new(),
        };
        let ends_run = world.ends_run().is_some();
        self.fruitless_worlds = 0;
        if world.ends.values().all(|end| *end == WorldEnd::Complete) {
            return self.complete();
        }
        self.note(Occurrence::WorldStopped { generation, reason: reason.clone() });
        if ends_run {
            return self.stopped(&reason);
        }
        self.leave_world(Call::Edge, format!("generation {} stopped at a step edge", generation.0));
    }

    /// The world is broken: whoever is still in it is told to leave.
    pub(crate) fn fail_world(&mut self, culprits: Vec<Rank>, reason: &str) {
        let State::Running(world) = &self.state else { return };
        let (generation, ends_run) = (world.generation(), world.ends_run().map(ToOwned::to_owned));
        if world.progressed() {
            self.fruitless_worlds = 0;
        } else if self.plan.as_ref().is_some_and(|plan| world.has_steps(plan)) {
            self.fruitless_worlds += 1;
        }
        self.broken_since = self.broken_since.or(Some(self.now));
        self.abort_members(generation, culprits, reason);
        if let Some(why) = ends_run {
            self.stopped(&format!("{why}; not at a step edge, since {reason}"));
        } else if self.fruitless_worlds >= MAX_FRUITLESS_WORLDS {
            self.fail(format!(
                "{MAX_FRUITLESS_WORLDS} worlds in a row ended without a step; the last: {reason}"
            ));
        } else {
            self.leave_world(
                Call::Failure,
                format!("generation {} failed: {reason}", generation.0),
            );
        }
    }

    fn leave_world(&mut self, call: Call, after: String) {
        let State::Running(world) = &self.state else { return };
        let forming = Forming::behind(call, after, &world.record);
        self.emit(Effect::Journal(Record::Ended(self.generation)));
        self.enter(State::Forming(forming));
    }

    /// Breaks the world for the sake of some of its members, and ends their sessions.
    pub(crate) fn put_out(&mut self, culprits: Vec<Rank>, reason: &str) {
        let members = self.roster.members().into_iter();
        let sessions: Vec<_> =
            members.filter(|(_, rank)| culprits.contains(rank)).map(|(id, _)| id).collect();
        for id in &sessions {
            let place = self.roster.get(*id).expect("members have sessions").place();
            self.cooldowns.note(place, self.now);
        }
        self.fail_world(culprits, reason);
        for id in sessions {
            self.close(id, Some(Refusal::Unavailable(reason.to_owned())));
            self.lost(id, reason);
        }
    }

    /// As [`Core::put_out`] for members whose state differs: they are to write it out, and never come back.
    pub(crate) fn put_out_to_dump(&mut self, odd: Vec<Rank>, reason: &str) {
        let State::Running(world) = &self.state else { return };
        let dump = Dump { generation: world.generation(), reason: reason.to_owned() };
        let members = self.roster.members().into_iter();
        for (id, _) in members.filter(|(_, rank)| odd.contains(rank)) {
            let worker = self.roster.get(id).expect("members have sessions").worker.clone();
            self.ban(worker, Banned::Odd);
            self.send(id, CoordinatorMessage::Dump(dump.clone()));
        }
        self.put_out(odd, reason);
    }

    /// Going on makes no sense, in this world or another: the run ends.
    pub(crate) fn give_up(&mut self, culprits: Vec<Rank>, reason: String) {
        let Some(generation) = self.live().map(LiveWorld::generation) else { return };
        self.abort_members(generation, culprits, &reason);
        self.fail(reason);
    }

    fn abort_members(&mut self, generation: Generation, culprits: Vec<Rank>, reason: &str) {
        let reason = reason.to_owned();
        self.note(Occurrence::WorldAborted {
            generation,
            culprits: culprits.clone(),
            reason: reason.clone(),
        });
        let abort = Abort { generation, culprits, reason };
        for (id, _) in self.roster.members() {
            let session = self.roster.get_mut(id).expect("members have sessions");
            session.standing = Standing::Idle;
            session.over = generation;
            self.send(id, CoordinatorMessage::Abort(abort.clone()));
        }
    }

    pub(crate) fn complete(&mut self) {
        let reason = format!("all {} steps are applied", self.progress.step.0);
        self.end(Verdict { phase: Phase::Complete, exit: Exit::Done, reason });
    }

    pub(crate) fn stopped(&mut self, why: &str) {
        let reason = format!("stopped at step {}: {why}", self.progress.step.0);
        self.end(Verdict { phase: Phase::Stopping, exit: Exit::Done, reason });
    }

    fn fail(&mut self, reason: String) {
        self.end(Verdict { phase: Phase::Failed, exit: Exit::DoNotRestart, reason });
    }

    fn end(&mut self, verdict: Verdict) {
        let dismiss = Dismiss { exit: verdict.exit, reason: verdict.reason.clone() };
        for id in self.roster.ids() {
            let session = self.roster.get_mut(id).expect("its id was just listed");
            session.standing = Standing::Idle;
            session.over = self.generation;
            self.send(id, CoordinatorMessage::Dismiss(dismiss.clone()));
        }
        self.unclosed = self.live().map(LiveWorld::generation);
        self.note(Occurrence::RunEnded { exit: verdict.exit, reason: verdict.reason.clone() });
        self.emit(Effect::Finished(verdict.exit));
        self.enter(State::Over(verdict));
        self.close_journal_when_alone();
    }

    /// The end of the run's last world is journaled once all workers have gone: a coordinator that is started again before
    /// that finds the world, and that it was to stop, and tells those who have not heard.
    pub(crate) fn close_journal_when_alone(&mut self) {
        if self.roster.len() == 0
            && let Some(generation) = self.unclosed.take()
        {
            self.emit(Effect::Journal(Record::Ended(generation)));
        }
    }
}
