//! Forming a world: connect the collectives.

use std::time::Duration;

use lockstep_collective::{
    AbortHandle, Collective, CollectiveError, HostListener, Rank, Solo, WorldSpec,
};
use lockstep_nn::Communicators;
use lockstep_proto::World;

/// Connects this rank with its peers, for whom it waits as long as later for a silent one.
pub(crate) fn connect(
    listener: &HostListener,
    run_id: &str,
    world: &World,
    abort: &AbortHandle,
    timeout: Duration,
) -> Result<Communicators, CollectiveError> {
    let spec = WorldSpec {
        run_id: run_id.to_owned(),
        generation: world.generation.0,
        rank: Rank(world.rank.0),
        peers: world.members.iter().map(|member| member.collective_address).collect(),
        secret: world.secret.0.into(),
        connect_deadline: timeout,
        op_deadline: timeout,
        channels: 2,
    };
    communicators(listener, &spec, abort)
}

/// Both communicators of a world of two channels. A rank that is alone talks to nobody.
pub(crate) fn communicators(
    listener: &HostListener,
    spec: &WorldSpec,
    abort: &AbortHandle,
) -> Result<Communicators, CollectiveError> {
    if spec.peers.len() == 1 {
        return Ok(Communicators {
            statistics: Box::new(Solo::new(abort.clone())),
            gradients: Box::new(Solo::new(abort.clone())),
        });
    }
    let mut channels = listener.connect(spec, abort)?.into_iter();
    let mut next = || -> Box<dyn Collective> {
        Box::new(channels.next().expect("as many channels as asked for"))
    };
    Ok(Communicators { statistics: next(), gradients: next() })
}
