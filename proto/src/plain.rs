//! A connection without TLS, which notices that the other end wants it.
//!
//! A TLS server answers anything but a handshake with an alert. Without a look at it, all that HTTP/2 could say is that
//! the other end breaks its rules.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tonic::transport::Uri;

/// First byte of a TLS alert. As the first of HTTP/2 it would begin a frame of more than a megabyte.
const ALERT: u8 = 21;

/// The other end does not speak without TLS.
#[derive(Debug, Clone, thiserror::Error)]
#[error("what answers at {0} speaks TLS; connect with https:// and --tls-ca")]
pub(crate) struct WantsTls(Uri);

impl WantsTls {
    /// Whether this is why something failed.
    pub(crate) fn find(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let inner = error.downcast_ref().and_then(io::Error::get_ref);
            if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<Self>()) {
                return Some(found.clone());
            }
            cause = error.source();
        }
        None
    }
}

/// Connects.
pub(crate) async fn connect(
    uri: Uri,
) -> io::Result<TokioIo<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (incoming, outgoing) = stream.into_split();
    Ok(TokioIo::new(tokio::io::join(Ear { incoming, unheard: Some(uri) }, outgoing)))
}

/// What comes in.
#[derive(Debug)]
struct Ear {
    incoming: OwnedReadHalf,
    /// Where it comes from, until the first of it is here.
    unheard: Option<Uri>,
}

impl AsyncRead for Ear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.incoming).poll_read(context, buffer))?;
        let first = buffer.filled().get(before);
        match self.unheard.take().filter(|_| first == Some(&ALERT)) {
            Some(uri) => Poll::Ready(Err(io::Error::other(WantsTls(uri)))),
            None => Poll::Ready(Ok(())),
        }
    }
}
