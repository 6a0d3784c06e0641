//! Connecting without TLS, and noticing that the other end wants it.
//!
//! A TLS server answers anything but a handshake with an alert, of which HTTP/2 would only say that the other end breaks
//! its rules. So its first word is said here, and the first of the answer looked at.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Uri;

use crate::connection::{first_of, host_of};

/// What every HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS alert. As the first of HTTP/2 it would begin a frame of more than a megabyte.
const ALERT: u8 = 21;

/// The other end does not speak without TLS.
#[derive(Debug, thiserror::Error)]
#[error("what answers there speaks TLS")]
struct WantsTls;

/// Whether that is why something failed.
pub(crate) fn wants_tls(error: &dyn Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref().and_then(io::Error::get_ref);
        if let Some(inner) = inner
            && inner.is::<WantsTls>()
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Connects.
pub(crate) async fn connect(
    uri: Uri,
) -> io::Result<TokioIo<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>> {
    let stream = TcpStream::connect((host_of(&uri), uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (mut incoming, mut outgoing) = stream.into_split();
    outgoing.write_all(PREFACE).await?;
    let first = first_of(&mut incoming).await?;
    if first.first() == Some(&ALERT) {
        return Err(io::Error::other(WantsTls));
    }
    let incoming = io::Cursor::new(first).chain(incoming);
    Ok(TokioIo::new(tokio::io::join(incoming, Skip { outgoing, bytes: PREFACE.len() })))
}

/// Leaves out the first bytes, which were sent already.
#[derive(Debug)]
struct Skip<W> {
    outgoing: W,
    bytes: usize,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Skip<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.bytes > 0 {
            let skipped = self.bytes.min(bytes.len());
            self.bytes -= skipped;
            return Poll::Ready(Ok(skipped));
        }
        Pin::new(&mut self.outgoing).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.outgoing).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.outgoing).poll_shutdown(context)
    }
}
