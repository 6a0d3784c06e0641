//! What the coordinator has told a rank of its world.

use std::collections::VecDeque;

use lockstep_proto::ids::Generation;
use lockstep_proto::{CommunicatorIds, StepPlan};

use crate::border::{Order, TrainerEnd};
use crate::ending::Ended;

/// Kept for later in this world.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Of the next steps, in their order.
    pub(crate) plans: VecDeque<StepPlan>,
    /// What came before the ranks had met.
    pub(crate) early: VecDeque<Order>,
}

impl Told {
    /// Where the ranks meet, once rank 0 has said so: by way of the coordinator, which ends a world that waits too long.
    pub(crate) fn communicators(
        &mut self,
        end: &mut TrainerEnd,
        generation: Generation,
    ) -> Result<CommunicatorIds, Ended> {
        loop {
            let order = end.orders.blocking_recv().unwrap_or(Order::Quit);
            let order = unless_it_ends(generation, order)?;
            if let Order::Communicators(ids) = order {
                if ids.generation == generation {
                    return Ok(*ids);
                }
            } else {
                self.early.push_back(order);
            }
        }
    }
}

/// An order, unless it ends the world of this generation.
pub(crate) fn unless_it_ends(generation: Generation, order: Order) -> Result<Order, Ended> {
    match order {
        Order::Abort(aborted, reason) if aborted == generation => Err(Ended::Aborted(reason)),
        Order::Welcomed(_) => {
            Err(Ended::Aborted("the coordinator goes on without this world".into()))
        }
        Order::Dump(dump) => Err(Ended::Odd(dump)),
        Order::Quit => Err(Ended::Quit),
        Order::Train(..)
        | Order::Communicators(_)
        | Order::Plan(_)
        | Order::Save(_)
        | Order::Abort(..) => Ok(order),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_proto::ids::Step;
    use lockstep_proto::limits::COMMUNICATOR_ID_BYTES;
    use lockstep_proto::{CommunicatorId, PlanWindow};

    use super::*;
    use crate::border::{SessionEnd, border};

    fn ids(generation: u64) -> CommunicatorIds {
        let id = |byte| CommunicatorId([byte; COMMUNICATOR_ID_BYTES]);
        CommunicatorIds { generation: Generation(generation), statistics: id(1), gradients: id(2) }
    }

    fn plan(generation: u64) -> Order {
        let (decay, learning_rate) = (0.9, 0.1);
        let step =
            StepPlan { step: Step(0), decay, learning_rate, checkpoint: false, regroup: false };
        Order::Plan(PlanWindow { generation: Generation(generation), steps: vec![step] })
    }

    /// What a rank of world 3 that waits for ids makes of these orders, and what it keeps.
    fn heard(orders: Vec<Order>) -> (Result<CommunicatorIds, Ended>, VecDeque<Order>) {
        let (SessionEnd { orders: sender, .. }, mut end) = border();
        for order in orders {
            sender.blocking_send(order).unwrap();
        }
        drop(sender);
        let mut told = Told::default();
        (told.communicators(&mut end, Generation(3)), told.early)
    }

    #[test]
    fn plans_that_come_before_the_ids_are_kept_and_ids_of_other_worlds_are_not_taken() {
        let (found, mut early) = heard(vec![
            plan(3),
            Order::Communicators(Box::new(ids(2))),
            Order::Save(Generation(3)),
            Order::Communicators(Box::new(ids(3))),
            plan(3),
        ]);
        assert_eq!(found.ok().unwrap(), ids(3));
        let [Order::Plan(_), Order::Save(_)] = early.make_contiguous() else {
            panic!("{early:?}");
        };
    }

    #[test]
    fn the_end_of_the_world_ends_the_wait_and_that_of_another_does_not() {
        let abort = |generation| Order::Abort(Generation(generation), "why".into());
        let (found, _) = heard(vec![abort(2), abort(3), Order::Communicators(Box::new(ids(3)))]);
        assert!(matches!(found, Err(Ended::Aborted(why)) if why == "why"));
        assert!(matches!(heard(vec![Order::Quit]).0, Err(Ended::Quit)));
        assert!(matches!(heard(Vec::new()).0, Err(Ended::Quit)), "the session is over");
    }
}
