//! The accepting side of one handshake.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use blake3::Hash;
use rustix::event::{PollFd, PollFlags};

use super::handshake::{Challenge, Hello, PROOF_LEN, Side, encode_verdict};
use super::line::{Joined, Line, nonce};
use super::spec::WorldSpec;
use crate::error::Refusal;

/// An accepted connection that has not proved yet that it belongs to the world.
#[derive(Debug)]
pub(super) struct Guest {
    line: Line,
    address: SocketAddr,
    deadline: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nothing heard yet.
    Silent,
    /// It said hello, and was asked for this proof.
    Challenged(Hello, Hash),
}

/// Where a guest stands.
#[derive(Debug)]
pub(super) enum Visit {
    /// It has to say more.
    Waiting(Guest),
    /// It is one of us.
    Joined(Joined),
    /// It left or was sent away, for this reason.
    Gone(String),
}

impl Guest {
    /// A connection that must prove itself by `deadline`.
    pub(super) fn new(
        stream: TcpStream,
        address: SocketAddr,
        deadline: Instant,
    ) -> io::Result<Self> {
        Ok(Self { line: Line::new(stream)?, address, deadline, stage: Stage::Silent })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn interest(&self) -> PollFd<'_> {
        PollFd::new(self.line.stream(), PollFlags::IN)
    }

    /// Goes as far as it can without waiting.
    pub(super) fn advance(self, spec: &WorldSpec, now: Instant) -> Visit {
        let (address, deadline) = (self.address, self.deadline);
        match self.converse(spec) {
            Ok(Visit::Waiting(_)) if now >= deadline => {
                Visit::Gone(format!("{address}: did not say who it is in time"))
            }
            Ok(visit) => visit,
            Err(error) => Visit::Gone(format!("{address}: {error}")),
        }
    }

    fn converse(mut self, spec: &WorldSpec) -> io::Result<Visit> {
        if let Stage::Silent = self.stage {
            let Some(bytes) = self.line.receive()? else { return Ok(Visit::Waiting(self)) };
            let Some(hello) = Hello::decode(&bytes) else {
                return Ok(Visit::Gone(format!("{}: not a worker's greeting", self.address)));
            };
            if let Err(refusal) = hello.judge(spec) {
                self.line.send(&Challenge::encode(Err(refusal)))?;
                return Ok(self.refused(hello, refusal));
            }
            let nonce = nonce()?;
            let proof = hello.proof(&spec.secret, Side::Acceptor, &nonce);
            self.line.send(&Challenge::encode(Ok(&Challenge { nonce, proof })))?;
            self.stage = Stage::Challenged(hello, hello.proof(&spec.secret, Side::Dialler, &nonce));
        }
        let Stage::Challenged(hello, expected) = self.stage else { unreachable!("set above") };
        let Some(proof) = self.line.receive::<PROOF_LEN>()? else {
            return Ok(Visit::Waiting(self));
        };
        // Comparing hashes takes constant time.
        if expected != proof {
            self.line.send(&encode_verdict(Err(Refusal::Secret)))?;
            return Ok(self.refused(hello, Refusal::Secret));
        }
        self.line.send(&encode_verdict(Ok(())))?;
        Ok(Visit::Joined(Joined {
            peer: hello.from,
            channel: hello.channel,
            stream: self.line.into_stream(),
        }))
    }

    fn refused(self, hello: Hello, refusal: Refusal) -> Visit {
        let Hello { from, generation, .. } = hello;
        let cause = refusal.cause();
        Visit::Gone(format!("{}: rank {from} of generation {generation}: {cause}", self.address))
    }
}
