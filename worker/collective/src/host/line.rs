//! A connection during the handshake: whole messages of known length, without waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::handshake::Nonce;
use crate::Rank;

/// A connection whose both ends have proved that they belong to the world.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) peer: Rank,
    pub(super) channel: u32,
    pub(super) stream: TcpStream,
}

/// A number that nobody can foresee, so that an old conversation is worth nothing. The one place
/// in this crate that wants true randomness; results don't depend on it.
pub(super) fn nonce() -> io::Result<Nonce> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

/// A nonblocking socket and the part of a message that has arrived.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Line {
    /// Small messages leave at once, and no call waits.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: Vec::new() })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends a message of the handshake. Those are far smaller than a fresh socket's buffer, so
    /// one that does not fit is an error.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message)
    }

    /// A message of `N` bytes, once all of it has arrived. Reads not a byte beyond it: what
    /// follows the handshake belongs to the mesh.
    pub(super) fn receive<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        while self.inbox.len() < N {
            let missing = N - self.inbox.len();
            match self.stream.read(&mut bytes[..missing]) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it hung up")),
                Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.copy_from_slice(&self.inbox);
        self.inbox.clear();
        Ok(Some(bytes))
    }
}
