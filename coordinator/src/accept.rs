//! Taking connections: plain ones, and ones that first shake hands.
//!
//! Nothing that comes in at the port ends the coordinator, and no client waits for the handshake of another.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use prometheus_client::metrics::counter::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes that may go on at once; further clients wait in the queue of the port.
const MAX_HANDSHAKES: usize = 256;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the operating system could not accept a connection, for example since too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections without TLS.
pub(crate) fn plain(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    unfold(listener, |listener| async {
        let (stream, _) = accept(&listener).await;
        Some((Ok(stream), listener))
    })
}

/// Connections on which both ends have accepted each other. Others are logged and counted in `refused`.
pub(crate) fn encrypted(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    refused: Counter,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let hall = Hall { listener, acceptor, refused, handshakes: JoinSet::new() };
    unfold(hall, |mut hall| async {
        let stream = hall.next().await;
        Some((Ok(stream), hall))
    })
}

/// Where clients shake hands.
struct Hall {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    refused: Counter,
    /// One task per client; its failure ends nothing but that client's connection.
    handshakes: JoinSet<(SocketAddr, io::Result<TlsStream<TcpStream>>)>,
}

impl Hall {
    async fn next(&mut self) -> TlsStream<TcpStream> {
        loop {
            tokio::select! {
                (stream, peer) = accept(&self.listener), if self.handshakes.len() < MAX_HANDSHAKES => {
                    self.handshakes.spawn(shake_hands(self.acceptor.clone(), stream, peer));
                }
                Some(done) = self.handshakes.join_next() => match done {
                    Ok((_, Ok(stream))) => return stream,
                    Ok((peer, Err(error))) => self.refuse(peer, &error),
                    Err(panicked) => tracing::error!(error = %panicked, "a handshake panicked"),
                },
            }
        }
    }

    fn refuse(&self, peer: SocketAddr, error: &io::Error) {
        self.refused.inc();
        tracing::warn!(%peer, %error, "refused a client at the TLS handshake");
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> (SocketAddr, io::Result<TlsStream<TcpStream>>) {
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    (peer, shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
}

/// The next connection, whatever happens to others.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, peer)| stream.set_nodelay(true).map(|()| (stream, peer)))
        {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
