//! What carries the collectives of a world, and where its ranks meet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use lockstep_proto::ids::Rank;
use lockstep_proto::server::Refusal;
use lockstep_proto::{Backend, CommunicatorIds, CoordinatorMessage};

use crate::core::{Core, State};
use crate::event::SessionId;

impl Core {
    /// Rank 0 has made ids: every rank hears of them, once. Said again, they are those that a broken stream may have
    /// swallowed. They are gone with the world.
    pub(crate) fn communicator_ids(&mut self, id: SessionId, ids: CommunicatorIds) {
        let Some(rank) = self.membership(id, ids.generation) else { return };
        if rank != Rank(0) {
            let what = format!("sent communicator ids as rank {}; rank 0 makes them", rank.0);
            return self.break_off(id, &what);
        }
        let State::Running(world) = &mut self.state else { return };
        match &world.communicators {
            Some(known) if *known == ids => {}
            Some(_) => self.break_off(id, "sent a second set of communicator ids for one world"),
            None => {
                world.communicators = Some(ids.clone());
                self.send_to_members(&CoordinatorMessage::CommunicatorIds(ids));
            }
        }
    }

    /// Refuses those of a world to be that could not talk with the others. True where there are any: then it does not
    /// form yet.
    pub(crate) fn refuse_odd_backends(&mut self, chosen: &[SessionId]) -> bool {
        let backend = |id: SessionId| self.roster.get(id)?.enlisted().map(|e| e.backend);
        let backends: BTreeMap<_, _> =
            chosen.iter().filter_map(|id| Some((*id, backend(*id)?))).collect();
        let Some(usual) = self.usual_backend(chosen, &backends) else { return false };
        let odd: Vec<_> = chosen.iter().filter(|id| backends[id] != usual).copied().collect();
        let named = |id: SessionId| {
            let session = self.roster.get(id).expect("it has enlisted");
            format!("slot {} on {}", session.slot.0, session.host)
        };
        let like = chosen.iter().copied().find(|id| backends[id] == usual).map(named);
        let refusals: Vec<_> = odd
            .iter()
            .map(|id| {
                format!(
                    "{} has {}, the others have {usual} ({}); start all workers with the same \
                     libtorch, build and kind of device",
                    named(*id),
                    backends[id],
                    like.as_deref().unwrap_or_default()
                )
            })
            .collect();
        for (id, text) in odd.iter().zip(refusals) {
            self.close(*id, Some(Refusal::Mismatch(text.clone())));
            self.lost(*id, &text);
        }
        !odd.is_empty()
    }

    /// That of most; of equally many, that of the newest state, then of the lowest slot.
    fn usual_backend(
        &self,
        chosen: &[SessionId],
        backends: &BTreeMap<SessionId, Backend>,
    ) -> Option<Backend> {
        let count = |backend| backends.values().filter(|other| **other == backend).count();
        let weight = |(place, id): &(usize, SessionId)| {
            (count(backends[id]), self.held(*id), Reverse(*place))
        };
        let strongest = chosen.iter().copied().enumerate().max_by_key(weight)?;
        Some(backends[&strongest.1])
    }
}
