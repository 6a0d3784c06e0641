//! Two leases: a worker has to be heard, and a world has to move.
//!
//! A rank that lives but is stuck is heard all the time. So heartbeats say how many collective operations it has issued:
//! once no rank of a world moves, the others wait for the one that has issued fewest.

use std::time::Duration;

use lockstep_proto::ids::Rank;
use lockstep_proto::server::Refusal;
use lockstep_proto::{Activity, Heartbeat};

use crate::core::{Core, State};
use crate::world::LiveWorld;

/// Median steps without progress that are suspicious.
const SUSPICIOUS_STEPS: u32 = 5;

/// What a world that does not move does.
#[derive(Debug, PartialEq, Eq)]
enum Standstill {
    /// Something that may take long.
    Excused,
    /// It waits for these ranks; none where all have come equally far.
    Stuck(Vec<Rank>),
}

impl Core {
    pub(crate) fn end_silent_sessions(&mut self) {
        let lease = Duration::from_millis(self.settings.config.control.lease_ms.into());
        for id in self.roster.silent(self.now, lease) {
            let why = format!("no message for {lease:?}");
            self.close(id, Some(Refusal::Unavailable(why.clone())));
            self.lost(id, &why);
        }
    }

    pub(crate) fn end_stuck_world(&mut self) {
        let limit = self.progress_lease();
        let now = self.now;
        let State::Running(world) = &mut self.state else { return };
        if !world.is_carried() || now.saturating_sub(world.moved) <= limit {
            return;
        }
        match standstill(world) {
            Standstill::Excused => world.moved = now,
            Standstill::Stuck(culprits) if culprits.is_empty() => {
                let reason = format!("no rank moved for {limit:?}; all wait for each other");
                self.fail_world(culprits, &reason);
            }
            Standstill::Stuck(culprits) => {
                let names: Vec<_> = culprits.iter().map(|rank| rank.0.to_string()).collect();
                let reason = format!(
                    "no progress for {limit:?}: the others wait for rank {}, which lives but is stuck",
                    names.join(", ")
                );
                self.put_out(culprits, &reason);
            }
        }
    }

    fn progress_lease(&self) -> Duration {
        let least = Duration::from_millis(self.settings.config.control.progress_ms.into());
        let median = self.progress.median_step().unwrap_or_default();
        least.max(median.saturating_mul(SUSPICIOUS_STEPS))
    }
}

impl LiveWorld {
    /// Takes in the heartbeat of a member.
    pub(crate) fn beat(&mut self, rank: Rank, heartbeat: Heartbeat, now: Duration) {
        let pulse = &mut self.pulses[rank.0 as usize];
        if *pulse != Some(heartbeat) {
            *pulse = Some(heartbeat);
            self.moved = now;
        }
    }
}

fn standstill(world: &LiveWorld) -> Standstill {
    let mut issued = Vec::new();
    for (rank, pulse) in (0..).map(Rank).zip(&world.pulses) {
        if world.ends.contains_key(&rank) {
            continue;
        }
        let activity = pulse.and_then(|pulse| pulse.activity);
        let sequence = pulse.map_or(0, |pulse| pulse.collective_sequence);
        match activity {
            // One that has not begun to join holds up the others as well.
            None | Some(Activity::Joining | Activity::Stepping) => issued.push((rank, sequence)),
            Some(Activity::Saving | Activity::Evaluating) => return Standstill::Excused,
            Some(Activity::AwaitingPlan) => {}
        }
    }
    let Some(least) = issued.iter().map(|(_, sequence)| *sequence).min() else {
        return Standstill::Excused;
    };
    let behind: Vec<_> =
        issued.iter().filter(|(_, sequence)| *sequence == least).map(|(rank, _)| *rank).collect();
    let everyone = behind.len() == world.record.members.len() && behind.len() > 1;
    Standstill::Stuck(if everyone { Vec::new() } else { behind })
}
