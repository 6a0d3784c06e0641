//! Forms a world: connects every pair of ranks, once per channel, and keeps strangers out.
//!
//! Of each pair the higher rank dials and the lower one accepts. All connections make progress at
//! the same time in one `poll` loop, so a connection that says nothing, or nonsense, delays no
//! other; it is dropped after [`GUEST_PATIENCE`].
//!
//! Not here: what is said (`handshake.rs`), and each side's part in it (`dial.rs`, `guest.rs`).

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::dial::{Call, Dial};
use super::guest::{Guest, Visit};
use super::line::Joined;
use super::mesh::Mesh;
use super::spec::WorldSpec;
use super::{HostCollective, now};
use crate::{AbortHandle, CollectiveError, Rank};

/// How long a connection may take to say who it is.
const GUEST_PATIENCE: Duration = Duration::from_secs(5);
/// Connections beyond the expected ones that may be unidentified at once; then the oldest goes.
const MAX_STRANGERS: usize = 64;
/// Refused connections and failed dials that are remembered for the error message.
const MAX_TROUBLES_TOLD: usize = 8;

/// Where peers reach this rank. Kept for the life of the process: world after world forms on it.
#[derive(Debug)]
pub struct HostListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl HostListener {
    /// Listens at `address`; port 0 lets the system choose.
    pub fn bind(address: SocketAddr) -> Result<Self, CollectiveError> {
        let fail = |e| CollectiveError::system(format!("listen for peers at {address}"), e);
        let socket = TcpListener::bind(address).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        Ok(Self { socket, address })
    }

    /// Where it listens. An unspecified IP address (`0.0.0.0`) stays one: peers need a real one.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes our place in a world, and returns one communicator per channel once every rank is
    /// connected. `abort` ends the forming, and later all of those communicators.
    ///
    /// Peers that still try to join an older world are refused; ones that are ahead of us keep
    /// trying, and find us when we get there.
    pub fn connect(
        &self,
        spec: &WorldSpec,
        abort: &AbortHandle,
    ) -> Result<Vec<HostCollective>, CollectiveError> {
        spec.check()?;
        let mut forming = Forming::new(self, spec, now());
        while !forming.is_complete() {
            let waited = now() - forming.since;
            if waited >= spec.connect_deadline {
                return Err(forming.incomplete(waited));
            }
            forming.sleep(abort)?;
            forming.advance(now())?;
        }
        Ok(forming.into_collectives(abort))
    }
}

/// A world that is not complete yet.
struct Forming<'a> {
    listener: &'a HostListener,
    spec: &'a WorldSpec,
    since: Instant,
    dials: Vec<Dial>,
    guests: Vec<Guest>,
    /// Finished connections, by channel and rank; none to ourselves.
    links: Vec<Vec<Option<TcpStream>>>,
    troubles: Vec<String>,
}

impl<'a> Forming<'a> {
    fn new(listener: &'a HostListener, spec: &'a WorldSpec, now: Instant) -> Self {
        let lower = (0..spec.rank.0).map(Rank);
        let dials = lower
            .flat_map(|peer| (0..spec.channels).map(move |channel| (peer, channel)))
            .map(|(peer, channel)| Dial::new(spec, peer, channel, now))
            .collect();
        let links = (0..spec.channels).map(|_| spec.peers.iter().map(|_| None).collect()).collect();
        Self { listener, spec, since: now, dials, guests: Vec::new(), links, troubles: Vec::new() }
    }

    fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }

    /// Ranks that lack a connection.
    fn missing(&self) -> Vec<Rank> {
        (0..self.spec.world())
            .map(Rank)
            .filter(|rank| *rank != self.spec.rank)
            .filter(|rank| self.links.iter().any(|links| links[rank.index()].is_none()))
            .collect()
    }

    fn incomplete(mut self, waited: Duration) -> CollectiveError {
        for trouble in self.dials.iter().filter_map(Dial::trouble).collect::<Vec<_>>() {
            self.note(trouble);
        }
        CollectiveError::Incomplete { missing: self.missing(), waited, troubles: self.troubles }
    }

    /// Lets every connection take the steps that it can take without waiting.
    fn advance(&mut self, now: Instant) -> Result<(), CollectiveError> {
        let mut joined = Vec::new();
        for dial in std::mem::take(&mut self.dials) {
            match dial.advance(self.spec, now)? {
                Call::Waiting(dial) => self.dials.push(dial),
                Call::Joined(link) => joined.push(link),
            }
        }
        self.accept(now)?;
        for guest in std::mem::take(&mut self.guests) {
            match guest.advance(self.spec, now) {
                Visit::Waiting(guest) => self.guests.push(guest),
                Visit::Joined(link) => joined.push(link),
                Visit::Gone(reason) => self.note(reason),
            }
        }
        for Joined { peer, channel, stream } in joined {
            // A peer that dials again lost its first connection: the newest counts.
            self.links[channel as usize][peer.index()] = Some(stream);
        }
        Ok(())
    }

    fn accept(&mut self, now: Instant) -> Result<(), CollectiveError> {
        let expected = (self.spec.peers.len() - 1) * self.spec.channels as usize;
        loop {
            let (stream, address) = match self.listener.socket.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The connection died in the queue.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(e) => return Err(CollectiveError::system("accept a peer", e)),
            };
            if self.guests.len() >= expected + MAX_STRANGERS {
                let oldest = self.guests.remove(0);
                self.note(format!(
                    "{}: too many connections that don't say who they are",
                    oldest.address()
                ));
            }
            match Guest::new(stream, address, now + GUEST_PATIENCE) {
                Ok(guest) => self.guests.push(guest),
                Err(e) => self.note(format!("{address}: {e}")),
            }
        }
    }

    fn note(&mut self, trouble: String) {
        if self.troubles.len() == MAX_TROUBLES_TOLD {
            self.troubles.remove(0);
        }
        self.troubles.push(trouble);
    }

    /// Sleeps until a connection can move, a dial or a guest's patience is due, the deadline has
    /// come or the abort bell rings.
    fn sleep(&self, abort: &AbortHandle) -> Result<(), CollectiveError> {
        let due = self.dials.iter().filter_map(Dial::due);
        let patience = self.guests.iter().map(Guest::deadline);
        let deadline = self.since + self.spec.connect_deadline;
        let wake = due.chain(patience).fold(deadline, Instant::min);
        let bell = abort.bell().map_err(|e| CollectiveError::system("make a bell", e))?;
        abort.check()?;
        let mut fds = vec![
            PollFd::from_borrowed_fd(bell, PollFlags::IN),
            PollFd::new(&self.listener.socket, PollFlags::IN),
        ];
        fds.extend(self.dials.iter().filter_map(Dial::interest));
        fds.extend(self.guests.iter().map(Guest::interest));
        let left = Timespec::try_from(wake.saturating_duration_since(now())).ok();
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => abort.check(),
            Err(errno) => Err(CollectiveError::system("poll the forming connections", errno)),
        }
    }

    fn into_collectives(self, abort: &AbortHandle) -> Vec<HostCollective> {
        let spec = self.spec;
        (0..spec.channels)
            .zip(self.links)
            .map(|(channel, links)| {
                let streams = (0..)
                    .map(Rank)
                    .zip(links)
                    .filter_map(|(rank, stream)| Some((rank, stream?)))
                    .collect();
                let mesh = Mesh::new(spec.rank, streams, abort.clone(), spec.op_deadline);
                HostCollective::new(spec, channel, mesh, abort.clone())
            })
            .collect()
    }
}
