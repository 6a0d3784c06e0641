//! One communicator's sockets, and the loop that moves bytes over all of them at once.
//!
//! [`Mesh::exchange`] sends to and receives from any number of peers at the same time, sleeping
//! in `poll` while nothing moves: full socket buffers can't deadlock, since whoever can't send
//! still receives, and an idle rank costs no time on a crowded machine.
//!
//! Not here: which bytes go where (`algorithm.rs`).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::flow::{Flow, Transfer};
use super::now;
use crate::operation::{HEADER_LEN, Operation};
use crate::{AbortHandle, CollectiveError, Rank};

/// The connections of one channel.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) rank: Rank,
    /// To every other rank, in rank order.
    links: Vec<Link>,
    /// The exchange under way, by link.
    transfers: Vec<Transfer>,
    /// Where peers' contributions land. Grows to what the operations need and stays;
    /// of u64, so that any element is aligned in it.
    scratch: Vec<u64>,
    abort: AbortHandle,
    op_deadline: Duration,
}

#[derive(Debug)]
struct Link {
    peer: Rank,
    stream: TcpStream,
}

impl Mesh {
    /// Over connected, nonblocking sockets to every other rank, in rank order.
    pub(super) fn new(
        rank: Rank,
        streams: Vec<(Rank, TcpStream)>,
        abort: AbortHandle,
        op_deadline: Duration,
    ) -> Self {
        let links: Vec<_> =
            streams.into_iter().map(|(peer, stream)| Link { peer, stream }).collect();
        let transfers = links.iter().map(|_| Transfer::default()).collect();
        Self { rank, links, transfers, scratch: Vec::new(), abort, op_deadline }
    }

    pub(super) fn world(&self) -> usize {
        self.links.len() + 1
    }

    /// At least `len` bytes of scratch memory.
    pub(super) fn scratch(&mut self, len: usize) -> &mut [u8] {
        let words = len.div_ceil(size_of::<u64>());
        if self.scratch.len() < words {
            self.scratch.resize(words, 0);
        }
        &mut bytemuck::cast_slice_mut(&mut self.scratch)[..len]
    }

    /// Sets what each link does in the next exchange.
    pub(super) fn plan(&mut self, mut flow: impl FnMut(usize, Rank) -> Flow) {
        for (index, (transfer, link)) in self.transfers.iter_mut().zip(&self.links).enumerate() {
            *transfer = Transfer::new(flow(index, link.peer));
        }
    }

    /// Who wants to send how much, as announced in the headers of the last exchange.
    pub(super) fn announced(&self) -> impl Iterator<Item = (Rank, u64)> {
        self.links.iter().map(|link| link.peer).zip(self.transfers.iter().map(|t| t.their_len))
    }

    /// Carries out all planned flows at the same time. `buffer` is what `send` and `to_buffer`
    /// refer to.
    pub(super) fn exchange(
        &mut self,
        operation: &Operation,
        buffer: &mut [u8],
    ) -> Result<(), CollectiveError> {
        self.abort.check()?;
        let header = operation.encode();
        let scratch_len = self.transfers.iter().map(|t| t.flow.to_scratch.end).max().unwrap_or(0);
        self.scratch(scratch_len);
        let mut silent_since = None;
        loop {
            let scratch: &mut [u8] = bytemuck::cast_slice_mut(&mut self.scratch);
            for (link, transfer) in self.links.iter().zip(&mut self.transfers) {
                if transfer.ready
                    && link.advance(transfer, operation, &header, (&mut *buffer, scratch))?
                {
                    silent_since = None;
                }
            }
            if self.transfers.iter().all(Transfer::is_done) {
                return Ok(());
            }
            self.sleep(operation, &mut silent_since)?;
        }
    }

    /// Sleeps until a link that is not done can move, the abort bell rings, or nothing has moved
    /// for the operation deadline.
    fn sleep(
        &mut self,
        operation: &Operation,
        silent_since: &mut Option<Instant>,
    ) -> Result<(), CollectiveError> {
        let now = now();
        let waited = now - *silent_since.get_or_insert(now);
        let Some(left) = self.op_deadline.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Err(self.silent(operation, waited));
        };
        let bell = self.abort.bell().map_err(|e| CollectiveError::system("make a bell", e))?;
        self.abort.check()?;
        let mut fds = Vec::with_capacity(self.transfers.len() + 1);
        fds.push(PollFd::from_borrowed_fd(bell, PollFlags::IN));
        fds.extend(
            waiting(&self.transfers).map(|index| {
                PollFd::new(&self.links[index].stream, self.transfers[index].interest())
            }),
        );
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(CollectiveError::system("poll the peers' sockets", errno)),
        }
        let mut moved = fds[1..].iter().map(|fd| !fd.revents().is_empty());
        for transfer in self.transfers.iter_mut().filter(|transfer| !transfer.is_done()) {
            transfer.ready = moved.next().unwrap_or(false);
        }
        self.abort.check()
    }

    /// Blames the first peer that owes us bytes, or else the first that takes none.
    fn silent(&self, operation: &Operation, waited: Duration) -> CollectiveError {
        let index = waiting(&self.transfers)
            .find(|&index| self.transfers[index].to_receive() > 0)
            .or_else(|| waiting(&self.transfers).next())
            .expect("we wait for somebody");
        let peer = self.links[index].peer;
        CollectiveError::PeerSilent { peer, op: operation.to_string(), waited }
    }

    /// Tells `peer` what we are doing, if its socket takes that at once: a last word to one that
    /// does something else, so that it can name both operations too.
    pub(super) fn tell(&self, peer: Rank, operation: &Operation) {
        for link in self.links.iter().filter(|link| link.peer == peer) {
            // Best effort: the peer sees the closed connection anyway.
            (&link.stream).write_all(&operation.encode()).ok();
        }
    }

    #[cfg(test)]
    pub(super) fn stream(&self, peer: Rank) -> &TcpStream {
        &self.links.iter().find(|link| link.peer == peer).expect("a peer").stream
    }

    /// Closes every connection, so that the peers' operations end at once.
    pub(super) fn close(&self) {
        for link in &self.links {
            // Fails only on a connection that is closed already.
            link.stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Links whose transfer is not done.
fn waiting(transfers: &[Transfer]) -> impl Iterator<Item = usize> {
    transfers.iter().enumerate().filter(|(_, transfer)| !transfer.is_done()).map(|(index, _)| index)
}

impl Link {
    /// Moves what can be moved now; returns whether anything was.
    ///
    /// A peer that disagrees closes the connection after its header: so read even when
    /// writing failed, and let the disagreement be the answer.
    fn advance(
        &self,
        transfer: &mut Transfer,
        operation: &Operation,
        header: &[u8; HEADER_LEN],
        (buffer, scratch): (&mut [u8], &mut [u8]),
    ) -> Result<bool, CollectiveError> {
        let (sent, received) = (transfer.sent, transfer.received);
        let written = self.write(transfer, header, buffer);
        let read = self.read(transfer, buffer, scratch);
        if let Some(header) = transfer.header_since(received) {
            transfer.their_len = operation.agree(header).map_err(|theirs| {
                CollectiveError::Diverged { peer: self.peer, ours: operation.to_string(), theirs }
            })?;
        }
        written.and(read).map_err(|source| CollectiveError::Connection {
            peer: self.peer,
            op: operation.to_string(),
            source: Arc::new(source),
        })?;
        Ok((sent, received) != (transfer.sent, transfer.received))
    }

    fn write(&self, transfer: &mut Transfer, header: &[u8], buffer: &[u8]) -> io::Result<()> {
        while transfer.to_send() > 0 {
            let wanted = transfer.to_send();
            let mut slices = transfer.outgoing(header, buffer).map(IoSlice::new);
            let mut slices = &mut slices[..];
            IoSlice::advance_slices(&mut slices, transfer.sent);
            let Some(written) = attempt(|| (&self.stream).write_vectored(slices))? else { break };
            transfer.sent += written;
            if written < wanted {
                break;
            }
        }
        Ok(())
    }

    fn read(
        &self,
        transfer: &mut Transfer,
        buffer: &mut [u8],
        scratch: &mut [u8],
    ) -> io::Result<()> {
        while transfer.to_receive() > 0 {
            let (wanted, received) = (transfer.to_receive(), transfer.received);
            let mut slices = transfer.incoming(buffer, scratch).map(IoSliceMut::new);
            let mut slices = &mut slices[..];
            IoSliceMut::advance_slices(&mut slices, received);
            let Some(read) = attempt(|| (&self.stream).read_vectored(slices))? else { break };
            if read == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed by the peer"));
            }
            transfer.received += read;
            if read < wanted {
                break;
            }
        }
        Ok(())
    }
}

/// One system call on a nonblocking socket; `None` where it would block.
fn attempt(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
