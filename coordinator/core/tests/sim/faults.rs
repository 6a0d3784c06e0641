//! What goes wrong.

use std::time::Duration;

use lockstep_proto::OperatorCommand;
use lockstep_proto::WorldEnd;
use lockstep_proto::ids::WorkerUid;

use super::{Happening, Sim, Trouble};
use crate::support::secs;

impl Sim {
    pub(super) fn fault(&mut self) {
        if self.now >= self.faults.end {
            return self.heal();
        }
        let pause = self.dice.ms(50, 2500);
        self.after(pause, Happening::Fault);
        let machines = self.machines.len() as u64;
        let index = usize::try_from(self.dice.below(machines)).expect("few machines");
        let kind = match self.trouble {
            _ if !self.faults.contains(&self.now) => return,
            Trouble::Coordinator => 0,
            Trouble::Everywhere => self.dice.below(16),
        };
        match kind {
            0 | 1 if self.core.is_some() => self.kill_coordinator(),
            2..=4 => self.end_process(index),
            5 | 6 => self.stick(index),
            7 | 8 => self.freeze(index),
            9 => self.cut_stream(index),
            10 => self.cut_silently(index),
            11 => self.break_world(index),
            12 => self.leave(index),
            13 => self.order(),
            14 => self.drain(index),
            _ => {}
        }
    }

    /// No more faults; what is stuck or frozen comes back by itself. Somebody starts anew what has another NCCL.
    fn heal(&mut self) {
        for index in 0..self.machines.len() {
            let process = self.machines[index].process.as_ref();
            if process.is_some_and(|process| self.backends[&process.uid] != self.backend) {
                self.end_process(index);
            }
            self.after(Duration::ZERO, Happening::Wake(index));
        }
        self.ask(&OperatorCommand::Resume);
        if self.paused || self.core.is_none() {
            self.after(secs(1), Happening::Fault);
        }
    }

    /// Its trainer waits for something that does not come.
    fn stick(&mut self, index: usize) {
        let until = self.now + self.dice.ms(100, 12_000);
        if let Some(process) = self.machines[index].process.as_mut() {
            process.stuck_until = until;
        }
    }

    fn freeze(&mut self, index: usize) {
        let until = self.now + self.dice.ms(100, 6000);
        if let Some(process) = self.machines[index].process.as_mut() {
            process.frozen_until = until;
        }
    }

    pub(super) fn stream_of(&self, index: usize) -> Option<u64> {
        self.machines[index].process.as_ref()?.stream.map(|(stream, _)| stream)
    }

    fn cut_stream(&mut self, index: usize) {
        if let Some(stream) = self.stream_of(index) {
            self.cut(stream);
        }
    }

    /// Nothing comes through any more, and nobody is told.
    fn cut_silently(&mut self, index: usize) {
        let Some(id) = self.stream_of(index) else { return };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.dead = true;
        let noticed = self.dice.ms(500, 6000);
        self.after(noticed, Happening::DownBroken(id));
    }

    fn break_world(&mut self, index: usize) {
        if let Some(process) = self.machines[index].process.as_mut() {
            process.leave_world(WorldEnd::Failed, None);
        }
        self.follow(index);
    }

    fn leave(&mut self, index: usize) {
        if let Some(process) = self.machines[index].process.as_mut() {
            process.leaving = true;
        }
    }

    fn order(&mut self) {
        match self.dice.below(12) {
            0..=2 => self.ask(&OperatorCommand::Pause),
            3..=7 => self.ask(&OperatorCommand::Resume),
            8..=10 => self.ask(&OperatorCommand::Checkpoint),
            _ => self.ask(&OperatorCommand::Stop),
        }
    }

    fn drain(&mut self, index: usize) {
        let uid = self.machines[index].process.as_ref().map(|process| process.uid.clone());
        if let Some(uid) = uid.filter(|_| self.dice.one_in(2)) {
            self.ask(&OperatorCommand::Drain(WorkerUid(uid)));
        }
    }
}
