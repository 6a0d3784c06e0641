//! Where the ranks of a communicator meet: a thread in the process that made the id. It takes what every
//! rank sends, and answers with the result.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::reduce::{Number, Operator, combine};

pub(crate) const ID_LEN: usize = 128;
const MAGIC: &[u8; 8] = b"FAKENCCL";
/// Port and number, after the magic.
const NAME_LEN: usize = 2 + 4 + 8;
const HELLO_LEN: usize = NAME_LEN + 4 + 4;
const HEADER_LEN: usize = 1 + 1 + 4 + 8;
/// Precedes every answer.
const HERE: [u8; 1] = [1];

/// Bytes that name one meeting.
pub(crate) type Id = [u8; ID_LEN];

/// What the ranks do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    AllReduce(Number, Operator),
    Broadcast { root: u32 },
    AllGather,
    Parting,
}

/// Opens a meeting, and names it.
pub(crate) fn open() -> io::Result<Id> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_le_bytes();
    let number = MADE.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let name = [&port[..], &std::process::id().to_le_bytes(), &number].concat();
    let mut id = [0; ID_LEN];
    id[..MAGIC.len()].copy_from_slice(MAGIC);
    id[MAGIC.len()..][..NAME_LEN].copy_from_slice(&name);
    // It ends when a rank leaves; whoever is left finds its connection closed.
    thread::spawn(move || host(listener, &name).ok());
    Ok(id)
}

/// Joins a meeting, and returns when all ranks have.
pub(crate) fn join(id: &Id, rank: u32, world: u32) -> io::Result<TcpStream> {
    let (magic, rest) = id.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an id of this library"));
    }
    let name = &rest[..NAME_LEN];
    let port = u16::from_le_bytes([name[0], name[1]]);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[name, &rank.to_le_bytes(), &world.to_le_bytes()].concat())?;
    stream.read_exact(&mut [0; HERE.len()])?;
    Ok(stream)
}

/// Does one task with the others: sends `mine`, receives `len` bytes.
pub(crate) fn take_part(
    stream: &mut TcpStream,
    task: Task,
    mine: &[u8],
    len: usize,
) -> io::Result<Vec<u8>> {
    stream.write_all(&encode(task, len as u64))?;
    stream.write_all(mine)?;
    stream.read_exact(&mut [0; HERE.len()])?;
    let mut result = vec![0; len];
    stream.read_exact(&mut result)?;
    Ok(result)
}

fn host(listener: TcpListener, name: &[u8]) -> io::Result<()> {
    let mut seats: Vec<Option<TcpStream>> = vec![None];
    while seats.iter().any(Option::is_none) {
        let (mut stream, _) = listener.accept()?;
        let mut hello = [0; HELLO_LEN];
        // Whoever does not greet as a rank of this meeting is let go.
        if stream.read_exact(&mut hello).is_err() || hello[..NAME_LEN] != *name {
            continue;
        }
        let word = |at: usize| u32::from_le_bytes(*hello[at..].first_chunk().expect("in it"));
        let (rank, world) = (word(NAME_LEN) as usize, word(NAME_LEN + 4) as usize);
        seats.resize_with(world.max(seats.len()), || None);
        seats[rank] = Some(stream);
    }
    // From here on, who comes with this id is refused.
    drop(listener);
    let mut ranks: Vec<_> = seats.into_iter().flatten().collect();
    for stream in &mut ranks {
        stream.set_nodelay(true)?;
        stream.write_all(&HERE)?;
    }
    loop {
        round(&mut ranks)?;
    }
}

/// One task of all ranks. The host's own process, rank 0, hears last, since it may end then.
fn round(ranks: &mut [TcpStream]) -> io::Result<()> {
    let mut sent = Vec::new();
    let mut agreed = None;
    let world = ranks.len();
    for (rank, stream) in ranks.iter_mut().enumerate() {
        let mut header = [0; HEADER_LEN];
        stream.read_exact(&mut header)?;
        if *agreed.get_or_insert(header) != header {
            // They mean different things, and wait for each other until somebody leaves.
            stream.read_to_end(&mut Vec::new())?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (task, len) = decode(&header);
        let mut bytes = vec![0; sends(task, rank, world, len)];
        stream.read_exact(&mut bytes)?;
        sent.push(bytes);
    }
    let (task, _) = decode(&agreed.expect("there are ranks"));
    let result = match task {
        Task::AllReduce(number, operator) => combine(number, operator, sent),
        Task::Broadcast { .. } | Task::AllGather | Task::Parting => sent.concat(),
    };
    for stream in ranks.iter_mut().rev() {
        stream.write_all(&HERE)?;
        stream.write_all(&result)?;
    }
    Ok(())
}

/// Bytes that a rank sends for a task whose result has `len`.
pub(crate) fn sends(task: Task, rank: usize, world: usize, len: usize) -> usize {
    match task {
        Task::AllReduce(..) => len,
        Task::Broadcast { root } if root as usize == rank => len,
        Task::AllGather => len / world,
        Task::Broadcast { .. } | Task::Parting => 0,
    }
}

fn encode(task: Task, len: u64) -> Vec<u8> {
    let (kind, detail, root) = match task {
        Task::AllReduce(number, operator) => (0, number as u8 * 2 + operator as u8, 0),
        Task::Broadcast { root } => (1, 0, root),
        Task::AllGather => (2, 0, 0),
        Task::Parting => (3, 0, 0),
    };
    [&[kind, detail][..], &root.to_le_bytes(), &len.to_le_bytes()].concat()
}

fn decode(header: &[u8; HEADER_LEN]) -> (Task, usize) {
    let [kind, detail, a, b, c, d, len @ ..] = *header;
    let number = match detail / 2 {
        0 => Number::F32,
        1 => Number::F64,
        _ => Number::Bf16,
    };
    let operator = if detail % 2 == 0 { Operator::Sum } else { Operator::Max };
    let task = match kind {
        0 => Task::AllReduce(number, operator),
        1 => Task::Broadcast { root: u32::from_le_bytes([a, b, c, d]) },
        2 => Task::AllGather,
        _ => Task::Parting,
    };
    (task, usize::try_from(u64::from_le_bytes(len)).expect("64 bits"))
}
