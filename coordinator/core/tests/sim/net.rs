//! Streams between workers and the coordinator: messages take their time, and come in order or not at all.

use std::time::Duration;

use super::dice::Dice;

/// Slowest message, in milliseconds.
const SLOWEST: u64 = 40;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Whose it is.
    pub(crate) machine: usize,
    /// Nothing comes through any more, in either direction.
    pub(crate) dead: bool,
    /// When the last message of each direction arrives.
    last: [Duration; 2],
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Up = 0,
    Down = 1,
}

impl Stream {
    pub(crate) fn new(machine: usize) -> Self {
        Self { machine, dead: false, last: [Duration::ZERO; 2] }
    }

    /// When a message that leaves now arrives: behind those before it.
    pub(crate) fn arrival(&mut self, way: Way, now: Duration, dice: &mut Dice) -> Duration {
        let last = &mut self.last[way as usize];
        *last = (*last).max(now + dice.ms(0, SLOWEST));
        *last
    }
}
