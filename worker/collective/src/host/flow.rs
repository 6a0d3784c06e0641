//! What one link carries in one exchange, and how much of it has moved. No I/O.

use std::ops::Range;

use rustix::event::PollFlags;

use crate::operation::HEADER_LEN;

/// What goes over a link, each way: a header or none, then two stretches of memory.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Whether our header leads what we send.
    pub(super) announce: bool,
    /// Stretches of the buffer to send.
    pub(super) send: [Range<usize>; 2],
    /// Whether the peer's header comes first.
    pub(super) expect: bool,
    /// Where the first bytes received go, in the scratch memory.
    pub(super) to_scratch: Range<usize>,
    /// Where the rest goes, in the buffer. Apart from what is sent in the same exchange,
    /// unless no peer can answer before it has all of that.
    pub(super) to_buffer: Range<usize>,
}

impl Flow {
    /// Both headers, no payload: the start of most flows.
    pub(super) fn greet() -> Self {
        Self { announce: true, expect: true, ..Self::default() }
    }
}

/// A flow under way.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    pub(super) flow: Flow,
    pub(super) sent: usize,
    pub(super) received: usize,
    /// The length in the peer's header, once that was checked.
    pub(super) their_len: u64,
    /// Whether trying to move bytes may succeed.
    pub(super) ready: bool,
    header: [u8; HEADER_LEN],
}

impl Transfer {
    pub(super) fn new(flow: Flow) -> Self {
        Self { flow, ready: true, ..Self::default() }
    }

    /// Bytes still to send.
    pub(super) fn to_send(&self) -> usize {
        let [first, second] = &self.flow.send;
        header_len(self.flow.announce) + first.len() + second.len() - self.sent
    }

    /// Bytes still to receive.
    pub(super) fn to_receive(&self) -> usize {
        let Flow { expect, to_scratch, to_buffer, .. } = &self.flow;
        header_len(*expect) + to_scratch.len() + to_buffer.len() - self.received
    }

    pub(super) fn is_done(&self) -> bool {
        self.to_send() == 0 && self.to_receive() == 0
    }

    /// What `poll` should watch for.
    pub(super) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, self.to_send() > 0);
        flags.set(PollFlags::IN, self.to_receive() > 0);
        flags
    }

    /// Everything to send, from its start.
    pub(super) fn outgoing<'a>(&self, header: &'a [u8], buffer: &'a [u8]) -> [&'a [u8]; 3] {
        let [first, second] = self.flow.send.clone();
        [&header[..header_len(self.flow.announce)], &buffer[first], &buffer[second]]
    }

    /// Where everything received goes, from its start.
    pub(super) fn incoming<'a>(
        &'a mut self,
        buffer: &'a mut [u8],
        scratch: &'a mut [u8],
    ) -> [&'a mut [u8]; 3] {
        let Flow { expect, to_scratch, to_buffer, .. } = &self.flow;
        let header = &mut self.header[..header_len(*expect)];
        [header, &mut scratch[to_scratch.clone()], &mut buffer[to_buffer.clone()]]
    }

    /// The peer's header, if it became complete since only `before` bytes were here.
    pub(super) fn header_since(&self, before: usize) -> Option<&[u8; HEADER_LEN]> {
        let complete = before < HEADER_LEN && self.received >= HEADER_LEN;
        (self.flow.expect && complete).then_some(&self.header)
    }
}

fn header_len(present: bool) -> usize {
    if present { HEADER_LEN } else { 0 }
}
