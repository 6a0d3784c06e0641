//! Coming and going: the checks of a hello, and what a lost session means.

use std::time::Duration;

use lockstep_proto::ids::{Rank, Slot};
use lockstep_proto::server::Refusal;
use lockstep_proto::{
    CoordinatorMessage, DataSet, Dismiss, Hello, Occurrence, PROTOCOL_VERSION, Welcome,
};

use crate::core::{Core, State};
use crate::event::SessionId;
use crate::plan::RunPlan;
use crate::roster::{Roster, Session};

impl Core {
    pub(crate) fn connected(&mut self, now: Duration, id: SessionId, hello: Hello) {
        match self.admit(&hello) {
            Ok(slot) => self.welcome(now, id, hello, slot),
            Err(refusal) => self.close(id, Some(refusal)),
        }
    }

    fn admit(&mut self, hello: &Hello) -> Result<Slot, Refusal> {
        if self.drained.contains(&hello.worker) {
            return Err(Refusal::Mismatch(format!(
                "the operator has drained worker {}; start another process in its place",
                hello.worker.0
            )));
        }
        let run = &self.settings.config.run;
        let admission = Admission {
            run_id: &run.id,
            version: &self.settings.version,
            world: run.world,
            data: self.plan.as_ref().map(|plan| &plan.data),
            roster: &self.roster,
        };
        let slot = admission.check(hello)?;
        if self.plan.is_none() {
            let plan = RunPlan::new(&self.settings.config, hello.data.clone())
                .map_err(|error| Refusal::Mismatch(error.to_string()))?;
            self.plan = Some(plan);
        }
        Ok(slot)
    }

    fn welcome(&mut self, now: Duration, id: SessionId, hello: Hello, slot: Slot) {
        if let Some(holder) = self.roster.holder(slot) {
            let text = format!("worker {} has taken over slot {}", hello.worker.0, slot.0);
            self.close(holder, Some(Refusal::Mismatch(text.clone())));
            self.lost(holder, &text);
        }
        self.note(Occurrence::WorkerJoined {
            worker: hello.worker.clone(),
            slot,
            host: hello.host.clone(),
        });
        self.roster.insert(id, Session::new(hello, slot, now));
        let config = self.settings.config.clone();
        let heartbeat = Duration::from_millis(config.control.heartbeat_ms.into());
        let welcome =
            Welcome { run_id: config.run.id.clone(), slot, config, heartbeat, member_of: None };
        self.send(id, CoordinatorMessage::Welcome(Box::new(welcome)));
        if let State::Over(verdict) = &self.state {
            let dismiss = Dismiss { exit: verdict.exit, reason: verdict.reason.clone() };
            self.send(id, CoordinatorMessage::Dismiss(dismiss));
        }
    }

    pub(crate) fn lost(&mut self, id: SessionId, why: &str) {
        let Some(session) = self.roster.remove(id) else { return };
        self.note(Occurrence::WorkerLeft {
            worker: session.worker.clone(),
            slot: session.slot,
            reason: why.to_owned(),
        });
        if let Some(rank) = session.rank() {
            let reason = format!("{} is gone: {why}", name(rank, &session));
            self.fail_world(vec![rank], &reason);
        }
        // A data set that nobody has trained on binds nobody.
        if self.roster.len() == 0 && self.generation == self.settings.last_generation {
            self.plan = None;
        }
    }

    pub(crate) fn end_silent_sessions(&mut self, now: Duration) {
        let lease = Duration::from_millis(self.settings.config.control.lease_ms.into());
        for id in self.roster.silent(now, lease) {
            let why = format!("no message for {lease:?}");
            self.close(id, Some(Refusal::Unavailable(why.clone())));
            self.lost(id, &why);
        }
    }
}

/// A member, for people.
pub(crate) fn name(rank: Rank, session: &Session) -> String {
    format!("rank {} (slot {} on {})", rank.0, session.slot.0, session.host)
}

/// What a hello is checked against.
#[derive(Debug)]
struct Admission<'a> {
    run_id: &'a str,
    version: &'a str,
    world: u32,
    /// The run's data set, once a worker has brought it.
    data: Option<&'a DataSet>,
    roster: &'a Roster,
}

impl Admission<'_> {
    /// The slot that this worker gets, or why it gets none.
    fn check(&self, hello: &Hello) -> Result<Slot, Refusal> {
        self.check_run(hello)?;
        self.check_data(&hello.data)?;
        self.slot(hello)
    }

    fn check_run(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.protocol != PROTOCOL_VERSION {
            return Err(Refusal::Mismatch(format!(
                "this worker speaks protocol {}, this coordinator {PROTOCOL_VERSION}; \
                 use the same version of both",
                hello.protocol
            )));
        }
        if let Some(run_id) = hello.run_id.as_deref().filter(|id| *id != self.run_id) {
            return Err(Refusal::Mismatch(format!(
                "this worker belongs to run `{run_id}`, this coordinator runs `{}`",
                self.run_id
            )));
        }
        if hello.version != self.version {
            return Err(Refusal::Mismatch(format!(
                "this worker has version {}, this coordinator {}; use the same version of both",
                hello.version, self.version
            )));
        }
        Ok(())
    }

    fn check_data(&self, data: &DataSet) -> Result<(), Refusal> {
        match self.data {
            Some(ours) if ours != data => Err(Refusal::Mismatch(format!(
                "this worker has data set {} ({} samples, {} classes), the run uses {} \
                 ({} samples, {} classes); give all workers the same shards",
                data.fingerprint,
                data.samples,
                data.classes,
                ours.fingerprint,
                ours.samples,
                ours.classes
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn slot(&self, hello: &Hello) -> Result<Slot, Refusal> {
        if let Some(slot) = hello.slot {
            if slot.0 < self.world {
                return Ok(slot);
            }
            return Err(Refusal::Mismatch(format!(
                "slot {} is outside of this run of {world} workers: slots are 0 to {}; \
                 start fewer workers or a coordinator with a larger --world",
                slot.0,
                self.world - 1,
                world = self.world
            )));
        }
        // A worker whose stream broke comes back to its own place.
        if let Some((_, slot)) = self.roster.find(&hello.worker) {
            return Ok(slot);
        }
        self.roster.free_slot(self.world).ok_or_else(|| {
            Refusal::Full(format!(
                "the run has all of its {} workers; start fewer workers or a coordinator \
                 with a larger --world",
                self.world
            ))
        })
    }
}
