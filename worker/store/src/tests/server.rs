//! A web server that fails in every way a network can, by a seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstep_data::keyed::Key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// All bytes.
    Served,
    /// A part of them, then a reset of the connection.
    Reset,
    /// A part of them, then an orderly end.
    Truncated,
    /// One wrong byte among them.
    WrongByte,
    /// All bytes, in small pieces with pauses.
    Slow,
    /// A part of them, then nothing.
    Silent,
    /// An answer with this status, which quotes the whole request.
    Status(u16),
}

/// Decides by path and the number of the request for that path.
type Judge = Box<dyn Fn(&str, u64) -> Fate + Send + Sync>;

/// A request, as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) range: Option<(usize, Option<usize>)>,
    pub(super) text: String,
}

/// Serves a folder; ends when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    folder: PathBuf,
    judge: Judge,
    requests: Mutex<Vec<Request>>,
}

impl Server {
    pub(super) fn new(
        folder: &Path,
        judge: impl Fn(&str, u64) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (folder, judge) = (folder.to_owned(), Box::new(judge));
        let shared = Arc::new(Shared { folder, judge, requests: Mutex::default() });
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                tokio::spawn(async move { drop(shared.serve(stream).await) });
            }
        });
        Self { address, shared, _runtime: runtime }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Requests by file name.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.requests() {
            *counts.entry(request.path).or_default() += 1;
        }
        counts
    }
}

/// Faults of every passing kind in half of the requests; every fourth for a path is always served. Nothing says what
/// the bytes of a manifest must be, so those are right.
pub(super) fn faulty(seed: u64) -> impl Fn(&str, u64) -> Fate {
    move |path, number| {
        let name = path.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        let draw = Key::new(name).below(number, 16);
        match draw {
            _ if number % 4 == 3 => Fate::Served,
            0 => Fate::Reset,
            1 => Fate::Truncated,
            2 => Fate::Slow,
            3 => Fate::Status(503),
            4 if number == 0 && !path.ends_with("json") => Fate::WrongByte,
            5 => Fate::Silent,
            _ => Fate::Served,
        }
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        while let Some(request) = read_request(&mut stream).await? {
            let number = {
                let mut requests = self.requests.lock().unwrap();
                let number = requests.iter().filter(|r| r.path == request.path).count();
                requests.push(request.clone());
                u64::try_from(number).unwrap()
            };
            let fate = (self.judge)(&request.path, number);
            let content = std::fs::read(self.folder.join(request.path.trim_start_matches('/')));
            match (fate, content) {
                (Fate::Status(status), _) => answer(&mut stream, status, &request.text).await?,
                (_, Err(_)) => answer(&mut stream, 404, "<Message>none here</Message>").await?,
                (fate, Ok(content)) => send(&mut stream, fate, &request, content).await?,
            }
        }
        Ok(())
    }
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let target = text.split(' ').nth(1).unwrap();
    // Google's protocol escapes all but letters and digits in the name of an object.
    let plain = |path: String, (escaped, sign): (&str, &str)| path.replace(escaped, sign);
    let path = target.split('?').next().unwrap().to_owned();
    let path = [("%2F", "/"), ("%2E", "."), ("%2D", "-")].into_iter().fold(path, plain);
    let range = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
        (name.eq_ignore_ascii_case("range"))
            .then(|| (from.parse().unwrap(), to.parse().ok().map(|last: usize| last + 1)))
    });
    Ok(Some(Request { path, range, text }))
}

async fn answer(stream: &mut TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await
}

async fn send(
    stream: &mut TcpStream,
    fate: Fate,
    request: &Request,
    mut content: Vec<u8>,
) -> std::io::Result<()> {
    let whole = content.len();
    let (from, to) = request.range.unwrap_or((0, None));
    let to = to.unwrap_or(whole).min(whole);
    if fate == Fate::WrongByte {
        content[(from + to) / 2] ^= 0x40;
    }
    let part = &content[from..to];
    let status = match request.range {
        Some(_) => {
            format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{whole}", to - 1)
        }
        None => "200 OK".to_owned(),
    };
    // Object stores promise the last two, and their clients insist on them.
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"1\"\r\nlast-modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n",
        part.len()
    );
    stream.write_all(head.as_bytes()).await?;
    match fate {
        Fate::Served | Fate::WrongByte | Fate::Status(_) => stream.write_all(part).await,
        Fate::Slow => {
            for piece in part.chunks(part.len() / 4 + 1) {
                stream.write_all(piece).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
        Fate::Reset | Fate::Truncated | Fate::Silent => {
            stream.write_all(&part[..part.len() / 2]).await?;
            stream.flush().await?;
            match fate {
                Fate::Silent => std::future::pending().await,
                Fate::Reset => stream.set_zero_linger()?,
                Fate::Served | Fate::Truncated | Fate::WrongByte | Fate::Slow | Fate::Status(_) => {
                }
            }
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
}
