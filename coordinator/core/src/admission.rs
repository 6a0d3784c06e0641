//! Coming and going: the checks of a hello, and what a lost session means.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_proto::ids::{Rank, Slot, WorkerUid};
use lockstep_proto::server::Refusal;
use lockstep_proto::{
    CoordinatorMessage, DataSet, Dismiss, Hello, Occurrence, PROTOCOL_VERSION, Welcome,
};

use crate::core::{Core, State};
use crate::event::SessionId;
use crate::journal::Banned;
use crate::plan::RunPlan;
use crate::roster::{MAX_SLOTS, Roster, Session};

impl Core {
    pub(crate) fn connected(&mut self, id: SessionId, hello: Hello) {
        match self.admit(&hello) {
            Ok(slot) => self.welcome(id, hello, slot),
            Err(refusal) => self.close(id, Some(refusal)),
        }
    }

    fn admit(&mut self, hello: &Hello) -> Result<Slot, Refusal> {
        let uid = &hello.worker.0;
        if let Some(banned) = self.banned.get(&hello.worker) {
            let what = match banned {
                Banned::Drained => format!("the operator has drained worker {uid}"),
                Banned::Odd => format!("worker {uid} held another state than the other ranks"),
            };
            return Err(Refusal::Mismatch(format!("{what}; start another process in its place")));
        }
        // A data set that nobody has trained on binds nobody.
        if self.roster.len() == 0 && !self.bound {
            self.plan = None;
        }
        let run = &self.settings.config.run;
        let admission = Admission {
            run_id: &run.id,
            version: &self.settings.version,
            data: self.plan.as_ref().map(|plan| &plan.data),
            roster: &self.roster,
            reserved: self.reserved(),
        };
        let slot = admission.check(hello)?;
        if self.plan.is_none() {
            let plan = RunPlan::new(&self.settings.config, hello.data.clone())
                .map_err(|error| Refusal::Mismatch(error.to_string()))?;
            self.plan = Some(plan);
        }
        Ok(slot)
    }

    fn welcome(&mut self, id: SessionId, hello: Hello, slot: Slot) {
        let member = hello.member.filter(|_| self.returning(&hello, slot).is_some());
        self.make_room(&hello, slot, member.is_some());
        self.note(Occurrence::WorkerJoined {
            worker: hello.worker.clone(),
            slot,
            host: hello.host.clone(),
        });
        self.roster.insert(id, Session::new(hello, slot, self.now));
        let config = self.settings.config.clone();
        self.send(
            id,
            CoordinatorMessage::Welcome(Box::new(Welcome {
                run_id: config.run.id.clone(),
                slot,
                heartbeat: Duration::from_millis(config.control.heartbeat_ms.into()),
                config,
                member_of: member.map(|member| member.generation),
            })),
        );
        if let Some(member) = member {
            self.take_back(id, member);
        }
        if let State::Over(verdict) = &self.state {
            let dismiss = Dismiss { exit: verdict.exit, reason: verdict.reason.clone() };
            self.send(id, CoordinatorMessage::Dismiss(dismiss));
        }
    }

    /// Ends what stands in the way of a worker that gets this slot.
    fn make_room(&mut self, hello: &Hello, slot: Slot, returns: bool) {
        let Some(holder) = self.roster.holder(slot) else {
            if !returns {
                self.count_out(hello, slot);
            }
            return;
        };
        if returns {
            // The same process on a new stream: it is not gone.
            self.close(holder, None);
            self.roster.remove(holder);
        } else {
            let text = format!("worker {} has taken over slot {}", hello.worker.0, slot.0);
            self.close(holder, Some(Refusal::Mismatch(text.clone())));
            self.lost(holder, &text);
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
            self.cooldowns.note(session.place(), self.now);
            let reason = format!("{} is gone: {why}", name(rank, &session));
            self.fail_world(vec![rank], &reason);
        }
        self.close_journal_when_alone();
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
    /// The run's data set, once a worker has brought it.
    data: Option<&'a DataSet>,
    roster: &'a Roster,
    /// Slots of members that may come back.
    reserved: BTreeMap<WorkerUid, Slot>,
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
        if let Some(slot) = self.reserved.get(&hello.worker) {
            return Ok(*slot);
        }
        if let Some(slot) = hello.slot {
            if slot.0 < MAX_SLOTS {
                return Ok(slot);
            }
            return Err(Refusal::Mismatch(format!(
                "slot {} is too high: slots are 0 to {}",
                slot.0,
                MAX_SLOTS - 1
            )));
        }
        // A worker whose stream broke comes back to its own place.
        if let Some((_, slot)) = self.roster.find(&hello.worker) {
            return Ok(slot);
        }
        let reserved = self.reserved.values().copied().collect();
        self.roster.free_slot(&reserved).ok_or_else(|| {
            Refusal::Full(format!("the run has {MAX_SLOTS} workers, the most it can take"))
        })
    }
}
