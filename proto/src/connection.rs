//! Reaching a coordinator, in plain text or by TLS.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::client::SessionError;
use crate::plain;
use crate::tls::{ClientTls, Distrust, host_name};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which HTTP/2 asks whether the other end is still there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Where a coordinator is, and how it is reached.
#[derive(Debug, Clone)]
pub struct Destination {
    uri: String,
    tls: Option<ClientTls>,
}

impl Destination {
    /// `uri` is such as `http://127.0.0.1:7400`, or `https://host:7400`, which needs `tls`.
    pub fn new(uri: impl Into<String>, tls: Option<ClientTls>) -> Self {
        Self { uri: uri.into(), tls }
    }

    /// One without TLS.
    pub fn plain(uri: impl Into<String>) -> Self {
        Self::new(uri, None)
    }

    /// Its URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Whether what is sent there can be read by nobody else: it is encrypted, or stays on this machine.
    pub fn is_private(&self) -> bool {
        let Ok(uri) = self.uri.parse::<Uri>() else { return false };
        uri.scheme_str() == Some("https") || uri.host().is_some_and(is_loopback)
    }

    /// Connects.
    pub(crate) async fn channel(&self) -> Result<Channel, SessionError> {
        let address = || self.uri.clone();
        let endpoint = Endpoint::from_shared(address())
            .map_err(|source| SessionError::Address { address: address(), source })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let encrypted = endpoint.uri().scheme_str() == Some("https");
        let connected = match &self.tls {
            None if encrypted => return Err(SessionError::NoAuthority { address: address() }),
            Some(tls) if encrypted => {
                let tls = tls.clone();
                let connect = tower::service_fn(move |uri| handshake(tls.clone(), uri));
                endpoint.connect_with_connector(connect).await
            }
            Some(_) | None => {
                endpoint.connect_with_connector(tower::service_fn(plain::connect)).await
            }
        };
        connected.map_err(|source| match distrust(&source) {
            Some(source) => SessionError::Distrust { address: address(), source },
            None if plain::wants_tls(&source) => SessionError::WantsTls { address: address() },
            None => SessionError::Unreachable { address: address(), source },
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Connects and shakes hands.
///
/// A TLS 1.3 client has finished before the server has looked at its certificate, so that a refusal would
/// come out of some later call, as text. An HTTP/2 server speaks first: once its first bytes are here, both
/// ends have accepted each other.
async fn handshake(
    tls: ClientTls,
    uri: Uri,
) -> std::io::Result<TokioIo<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>> {
    let (host, port) = (host_of(&uri), uri.port_u16().unwrap_or(443));
    let name = match tls.server_name {
        Some(name) => name,
        None => name_of(host)?,
    };
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let mut stream = TlsConnector::from(tls.config).connect(name, stream).await?;
    let first = first_of(&mut stream).await?;
    let (incoming, outgoing) = tokio::io::split(stream);
    let incoming = std::io::Cursor::new(first).chain(incoming);
    Ok(TokioIo::new(tokio::io::join(incoming, outgoing)))
}

/// The first bytes that come from the other end.
pub(crate) async fn first_of(incoming: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut first = vec![0; 1024];
    let length = incoming.read(&mut first).await?;
    if length == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    first.truncate(length);
    Ok(first)
}

/// The host in a URI, without the brackets of an IPv6 address.
pub(crate) fn host_of(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

fn name_of(host: &str) -> std::io::Result<ServerName<'static>> {
    host_name(host).map_err(std::io::Error::other)
}

/// What TLS has to say about a failed attempt, if it is about TLS.
fn distrust(error: &dyn Error) -> Option<Distrust> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref().and_then(Distrust::find) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encrypted_and_local_destinations_are_private() {
        for private in
            ["http://127.0.0.1:7400", "http://[::1]:7400", "http://localhost:1", "https://far:1"]
        {
            assert!(Destination::plain(private).is_private(), "{private}");
        }
        for open in ["http://10.0.0.1:7400", "http://coordinator:7400", "http://[fe80::1]:1", ""] {
            assert!(!Destination::plain(open).is_private(), "{open}");
        }
    }
}
