//! What must hold at one moment; for what must hold of the whole history, see `law.rs`.

use std::collections::BTreeSet;

use lockstep_core::Event;
use lockstep_proto::ids::WorkerUid;
use lockstep_proto::server::Refusal;
use lockstep_proto::{Phase, WorkerMessage, World};

use super::process::Process;
use super::{STEPS, Sim};
use crate::support::secs;

impl Sim {
    /// Notes what the coordinator knows of who is there.
    pub(super) fn hear_of(&mut self, event: &Event) {
        match event {
            Event::Started => self.heard_of.clear(),
            Event::Connected { session, hello } => {
                self.heard_of.insert(session.0, (hello.worker.clone(), false));
            }
            Event::Message { session, message } => {
                if let Some((_, enlisted)) = self.heard_of.get_mut(&session.0) {
                    *enlisted |= matches!(**message, WorkerMessage::Enlist(_));
                }
            }
            Event::Lost { session, .. } => {
                self.heard_of.remove(&session.0);
            }
            Event::Tick | Event::StopRequested => {}
        }
    }

    pub(super) fn check_status(&self) {
        let Some(core) = &self.core else { return };
        let status = core.status();
        let now = u64::try_from(self.now.as_millis()).expect("a short run");
        assert!(status.since_unix_ms <= now, "it says since when");
        let over = status.until_unix_ms.is_some_and(|until| until + 1000 < now);
        assert!(!over, "the wait should be over: {}", status.summary);
        assert!(status.step.0 <= STEPS && !status.summary.is_empty());
    }

    /// A run that is complete has left its last state on some disk.
    pub(super) fn check_complete(&self) {
        let saved =
            |step| self.machines.iter().filter_map(|m| m.disk).any(|held| held.step == step);
        assert!(self.over != Some(Phase::Complete) || saved(STEPS), "the last state is lost");
    }

    /// No member of the world that forms holds anything newer than the state that it starts from.
    pub(super) fn check_newest_state(&self, start: u64) {
        let world = self.law.world(self.law.newest_generation()).expect("it is announced");
        for process in self.machines.iter().filter_map(|machine| machine.process.as_ref()) {
            let member = world.members.iter().any(|member| member.worker.0 == process.uid);
            let held = process.held.map_or(0, |held| held.step);
            assert!(!member || held <= start, "{} holds step {held}, not {start}", process.uid);
        }
    }

    /// The ranks of a world can talk to each other.
    pub(super) fn check_backends(&self, world: &World) {
        let backends = world.members.iter().map(|member| self.backends[&member.worker.0]);
        assert_eq!(backends.collect::<BTreeSet<_>>().len(), 1, "a mixed world: {world:?}");
    }

    /// A world forms only of more than half of those who wait for it or are coming back from the last one.
    pub(super) fn check_majority(&self, world: &World) {
        if self.law.world(world.generation).is_some() {
            return; // looked at when its first member heard of it
        }
        let last = self.law.members_before();
        let core = self.core.as_ref().expect("it has just decided");
        let workers = core.workers(self.now.saturating_sub(self.started));
        let fit = |uid: &WorkerUid| {
            workers.iter().any(|worker| worker.worker == *uid && worker.cooldown.is_zero())
        };
        let there = self.heard_of.values().filter(|(uid, _)| fit(uid));
        let (ready, idle): (Vec<_>, Vec<_>) = there.partition(|(_, enlisted)| *enlisted);
        let back = idle.iter().filter(|(uid, _)| last.contains(uid)).count();
        let all = (ready.len() + back).min(self.config.run.most() as usize);
        assert!(
            ready.len() * 2 > all,
            "{} of {all} form a world: {:?}",
            ready.len(),
            self.heard_of
        );
    }

    /// A worker that keeps to the protocol is never told otherwise, and no rank is put out for others' sake.
    pub(super) fn check_closing(&self, stream: u64, refusal: Option<&Refusal>) {
        match refusal {
            Some(Refusal::Protocol(what)) => panic!("a faithful worker is sent away: {what}"),
            Some(Refusal::Unavailable(why)) if why.contains("is stuck") => {
                let machine = self.streams.get(&stream).map(|stream| stream.machine);
                let process = machine.and_then(|machine| self.machines[machine].process.as_ref());
                let stood = |p: &Process| p.stuck_until.max(p.frozen_until) + secs(2) > self.now;
                assert!(process.is_none_or(stood), "{process:?} is put out and was not stuck");
            }
            Some(_) | None => {}
        }
    }
}
