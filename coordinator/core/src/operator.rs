//! What operators may ask for. Asking for what is so already changes nothing.
//!
//! A pause and a drain end the world at a step edge, with a checkpoint, as a stop does; what differs is what comes
//! after. So a paused worker waits outside of any world, where it can be stopped, replaced and kept for days, and
//! going on is forming a world as always.

use std::time::Duration;

use lockstep_proto::ids::{Rank, WorkerUid};
use lockstep_proto::server::Refusal;
use lockstep_proto::{CoordinatorMessage, Dismiss, Exit, Occurrence, OperatorCommand, Stop};

use crate::core::{Core, State};
use crate::event::{Effect, SessionId};
use crate::journal::{Banned, Record, Stopping, Then};
use crate::roster::Standing;

impl Core {
    /// As [`Core::step`] for what an operator asks, with a sentence for the answer.
    pub fn operate(
        &mut self,
        now: Duration,
        command: OperatorCommand,
    ) -> (Vec<Effect>, Result<String, Refusal>) {
        self.now = now;
        let answer = match command {
            OperatorCommand::Stop => Ok(self.stop()),
            _ if matches!(self.state, State::Over(_)) => Err(Refusal::Mismatch(self.explain())),
            OperatorCommand::Checkpoint => self.checkpoint(),
            OperatorCommand::Pause => Ok(self.pause()),
            OperatorCommand::Resume => Ok(self.resume()),
            OperatorCommand::Drain(worker) => self.drain(worker),
        };
        (self.take_effects(), answer)
    }

    /// A signal: the same as [`Core::stop`], but a second one does not wait.
    pub(crate) fn stop_requested(&mut self) {
        let twice = self.live().is_some_and(|world| world.ends_run().is_some());
        if twice {
            return self.stopped("the operator asked twice");
        }
        self.stop();
    }

    fn stop(&mut self) -> String {
        let why = "the operator asked for it";
        match &self.state {
            State::Running(world) if world.ends_run().is_none() => {
                self.note_asked(&OperatorCommand::Stop);
                self.stop_world(why, Then::End);
            }
            State::Forming(_) => {
                self.note_asked(&OperatorCommand::Stop);
                self.stopped(why);
            }
            State::Running(_) | State::Over(_) => {}
        }
        self.explain()
    }

    fn pause(&mut self) -> String {
        if !self.paused {
            self.paused = true;
            self.since = self.now;
            self.note_asked(&OperatorCommand::Pause);
            self.stop_world("the operator asked for a pause", Then::Form);
        }
        self.explain()
    }

    fn resume(&mut self) -> String {
        if self.paused {
            self.paused = false;
            self.since = self.now;
            self.note_asked(&OperatorCommand::Resume);
            self.settle();
        }
        self.explain()
    }

    fn checkpoint(&mut self) -> Result<String, Refusal> {
        let newest = self.progress.checkpoint;
        let State::Running(world) = &mut self.state else {
            return match newest {
                Some(step) if step == self.progress.step => {
                    Ok(format!("the checkpoint of step {} is written already", step.0))
                }
                Some(_) | None => Err(Refusal::Unavailable(format!(
                    "no world trains, so nobody can write a checkpoint now: {}",
                    self.explain()
                ))),
            };
        };
        if world.stopping.is_some() || !world.ends.is_empty() {
            return Ok(format!(
                "a checkpoint comes with the end of this world: {}",
                self.explain()
            ));
        }
        let (generation, asked) = (world.generation(), world.saving);
        let members = self.roster.members();
        let Some((id, _)) = members.into_iter().find(|(_, rank)| *rank == Rank(0)) else {
            let why = format!("rank 0 writes checkpoints and is not here: {}", self.explain());
            return Err(Refusal::Unavailable(why));
        };
        if !asked {
            world.saving = true;
            self.note_asked(&OperatorCommand::Checkpoint);
            self.send(id, CoordinatorMessage::Save(generation));
        }
        Ok("rank 0 writes a checkpoint at the next step edge".into())
    }

    fn drain(&mut self, worker: WorkerUid) -> Result<String, Refusal> {
        if self.banned.contains_key(&worker) {
            return Ok(format!("worker {} was drained already: {}", worker.0, self.explain()));
        }
        let Some((id, _)) = self.roster.find(&worker) else {
            return Err(Refusal::Mismatch(format!(
                "there is no worker `{}`; `coordinator status` lists those that are connected",
                worker.0
            )));
        };
        self.note_asked(&OperatorCommand::Drain(worker.clone()));
        let why = format!("the operator drains worker {}", worker.0);
        self.ban(worker, Banned::Drained);
        let session = self.roster.get_mut(id).expect("it was just found");
        match session.standing {
            Standing::Member(_) => self.stop_world(&why, Then::Form),
            Standing::Enlisted(_) => self.dismiss_drained(id),
            Standing::Idle => {} // it will enlist
        }
        Ok(self.explain())
    }

    /// Sends a drained worker home, and gives its slot free.
    pub(crate) fn dismiss_drained(&mut self, id: SessionId) {
        let reason = "drained by the operator".to_owned();
        let dismiss = Dismiss { exit: Exit::Done, reason: reason.clone() };
        self.send(id, CoordinatorMessage::Dismiss(dismiss));
        self.close(id, None);
        self.lost(id, &reason);
    }

    /// Has the present world end at a step edge. One that ends already is only told apart by what comes after: ending
    /// the run outdoes the rest.
    fn stop_world(&mut self, why: &str, then: Then) {
        let State::Running(world) = &mut self.state else { return };
        let (generation, told) = (world.generation(), world.stopping.is_some());
        if !told || then == Then::End {
            let stopping = Stopping { why: why.to_owned(), then };
            world.stopping = Some(stopping.clone());
            self.since = self.now;
            self.emit(Effect::Journal(Record::Stopping(generation, stopping)));
        }
        if !told {
            let stop = Stop { generation, reason: why.to_owned() };
            self.send_to_members(&CoordinatorMessage::Stop(stop));
        }
    }

    fn note_asked(&mut self, command: &OperatorCommand) {
        self.note(Occurrence::OperatorAsked { command: command.to_string() });
    }
}
