//! The dialling side of one handshake, again and again until the peer is there.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, connect, socket};

use super::handshake::{Challenge, Hello, Side, decode_verdict};
use super::line::{Joined, Line, nonce};
use super::spec::WorldSpec;
use crate::error::Refusal;
use crate::{CollectiveError, Rank};

/// Pause after a failed attempt: a peer that restarts is found soon, and not flooded.
const PAUSE: Duration = Duration::from_millis(50);

/// One connection that we are to open.
#[derive(Debug)]
pub(super) struct Dial {
    peer: Rank,
    channel: u32,
    address: SocketAddr,
    stage: Stage,
    /// Why the last attempt failed.
    trouble: Option<String>,
}

#[derive(Debug)]
enum Stage {
    /// To be dialled at this time.
    Resting(Instant),
    /// The network looks for the peer.
    Connecting(Line),
    /// We said hello.
    Greeted(Line, Hello),
    /// We sent our proof.
    Proved(Line),
}

/// Where a dial stands.
#[derive(Debug)]
pub(super) enum Call {
    /// The peer has to answer, or it is not time to dial yet.
    Waiting(Dial),
    /// Both sides are content.
    Joined(Joined),
}

/// What one look at a stage finds.
enum Step {
    Next(Stage),
    Stay(Stage),
    Open(TcpStream),
}

/// Why an attempt failed.
enum Setback {
    Lost(io::Error),
    Refused(Refusal),
}

impl From<io::Error> for Setback {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Dial {
    /// To `peer`, at once.
    pub(super) fn new(spec: &WorldSpec, peer: Rank, channel: u32, now: Instant) -> Self {
        let address = spec.peers[peer.index()];
        Self { peer, channel, address, stage: Stage::Resting(now), trouble: None }
    }

    /// When to dial next, if it rests.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Resting(until) => Some(until),
            Stage::Connecting(_) | Stage::Greeted(..) | Stage::Proved(_) => None,
        }
    }

    pub(super) fn interest(&self) -> Option<PollFd<'_>> {
        match &self.stage {
            Stage::Resting(_) => None,
            Stage::Connecting(line) => Some(PollFd::new(line.stream(), PollFlags::OUT)),
            Stage::Greeted(line, _) | Stage::Proved(line) => {
                Some(PollFd::new(line.stream(), PollFlags::IN))
            }
        }
    }

    /// Why the last attempt failed, for the error of a world that never completed.
    pub(super) fn trouble(&self) -> Option<String> {
        let Self { peer, address, trouble, .. } = self;
        trouble.as_ref().map(|trouble| format!("dialling rank {peer} at {address}: {trouble}"))
    }

    /// Goes as far as it can without waiting. A peer that is not there, or still in an older
    /// generation, is dialled again later; any other refusal is final.
    pub(super) fn advance(self, spec: &WorldSpec, now: Instant) -> Result<Call, CollectiveError> {
        let Self { peer, channel, address, mut stage, trouble } = self;
        let trouble = loop {
            match (Attempt { peer, channel, address, spec, now }).step(stage) {
                Ok(Step::Next(next)) => stage = next,
                Ok(Step::Stay(stage)) => {
                    return Ok(Call::Waiting(Self { peer, channel, address, stage, trouble }));
                }
                Ok(Step::Open(stream)) => {
                    return Ok(Call::Joined(Joined { peer, channel, stream }));
                }
                Err(Setback::Lost(error)) => break error.to_string(),
                Err(Setback::Refused(refusal @ Refusal::Generation { theirs }))
                    if theirs < spec.generation =>
                {
                    break refusal.to_string();
                }
                Err(Setback::Refused(refusal)) => {
                    return Err(CollectiveError::Refused { peer, address, refusal });
                }
            }
        };
        let stage = Stage::Resting(now + PAUSE);
        Ok(Call::Waiting(Self { peer, channel, address, stage, trouble: Some(trouble) }))
    }
}

/// What a stage needs to know to go on.
struct Attempt<'a> {
    peer: Rank,
    channel: u32,
    address: SocketAddr,
    spec: &'a WorldSpec,
    now: Instant,
}

impl Attempt<'_> {
    fn step(&self, stage: Stage) -> Result<Step, Setback> {
        match stage {
            Stage::Resting(until) if self.now < until => Ok(Step::Stay(stage)),
            Stage::Resting(_) => Ok(Step::Next(Stage::Connecting(dial(self.address)?))),
            Stage::Connecting(line) => self.greet(line),
            Stage::Greeted(line, hello) => self.prove(line, hello),
            Stage::Proved(mut line) => match line.receive()? {
                None => Ok(Step::Stay(Stage::Proved(line))),
                Some(bytes) => match decode_verdict(&bytes).ok_or_else(stranger)? {
                    Ok(()) => Ok(Step::Open(line.into_stream())),
                    Err(refusal) => Err(Setback::Refused(refusal)),
                },
            },
        }
    }

    fn greet(&self, mut line: Line) -> Result<Step, Setback> {
        if let Some(error) = line.stream().take_error()? {
            return Err(error.into());
        }
        if line.stream().peer_addr().is_err() {
            return Ok(Step::Stay(Stage::Connecting(line)));
        }
        let hello = Hello::new(self.spec, self.peer, self.channel, nonce()?);
        line.send(&hello.encode())?;
        Ok(Step::Next(Stage::Greeted(line, hello)))
    }

    fn prove(&self, mut line: Line, hello: Hello) -> Result<Step, Setback> {
        let Some(bytes) = line.receive()? else {
            return Ok(Step::Stay(Stage::Greeted(line, hello)));
        };
        let answer = Challenge::decode(&bytes).ok_or_else(stranger)?;
        let challenge = answer.map_err(Setback::Refused)?;
        let secret = &self.spec.secret;
        if challenge.proof != hello.proof(secret, Side::Acceptor, &challenge.nonce) {
            return Err(Setback::Refused(Refusal::Secret));
        }
        line.send(hello.proof(secret, Side::Dialler, &challenge.nonce).as_bytes())?;
        Ok(Step::Next(Stage::Proved(line)))
    }
}

/// Something else answers at that address.
fn stranger() -> io::Error {
    io::Error::other("what answers there is not a worker")
}

/// Starts a connection without waiting for it, which the standard library can't.
fn dial(address: SocketAddr) -> io::Result<Line> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let line = Line::new(TcpStream::from(socket(family, SocketType::STREAM, None)?))?;
    match connect(line.stream(), &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(line),
        Err(errno) => Err(errno.into()),
    }
}
