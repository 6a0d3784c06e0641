//! Who may talk to whom: certificates and keys, as both ends of a TLS connection use them.
//!
//! TLS 1.3 only, since both ends are of this workspace. The cryptography is *ring*'s and is named in
//! every configuration: where a second provider is linked in, a default that nobody chose would panic.
//!
//! Not here: reading the files (`lockstep-service`), connecting (`connection.rs`).

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
};

/// What HTTP/2 is called in the handshake.
const HTTP2: &[u8] = b"h2";

/// Why certificates or keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file that should hold certificates does not.
    #[error("it holds no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// A file that should hold a private key does not.
    #[error("it holds no private key in PEM form (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
    /// A certificate that is none inside.
    #[error("certificate {number} in it can't be used")]
    BadCertificate {
        /// Counted from 1.
        number: usize,
        /// Why.
        #[source]
        source: Error,
    },
    /// Certificate and key exist but can't be used together.
    #[error("the certificate and its key can't be used together")]
    BadIdentity(#[source] Error),
    /// Certificates of an authority that can't be checked against.
    #[error("the authority's certificates can't be used")]
    BadAuthority(#[source] tokio_rustls::rustls::client::VerifierBuilderError),
    /// A name that no certificate can be for.
    #[error("`{0}` is neither a host name nor an IP address")]
    BadName(String),
}

/// Certificates of the authorities that one end trusts.
#[derive(Debug, Clone)]
pub struct Authority(Arc<RootCertStore>);

impl Authority {
    /// Reads PEM text; what is not a certificate in it is skipped.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(chain_from_pem(pem)?) {
            roots.add(certificate).map_err(|source| TlsFault::BadCertificate { number, source })?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// A certificate, with those that link it to its authority, and its private key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Takes what [`chain_from_pem`] and [`key_from_pem`] have read.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }
}

/// The certificates in a PEM text, the end's own first.
pub fn chain_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(TlsFault::NoCertificate),
    }
}

/// The first private key in a PEM text.
pub fn key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsFault::NoKey)
}

/// How a client connects: whom it trusts and what it shows.
#[derive(Debug, Clone)]
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// `server_name` is the name that the server's certificate must be for, where that is not the one in
    /// the server's address.
    ///
    /// # Panics
    ///
    /// Never: *ring* has TLS 1.3.
    pub fn new(
        authority: &Authority,
        identity: Option<Identity>,
        server_name: Option<&str>,
    ) -> Result<Self, TlsFault> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3")
            .with_root_certificates(Arc::clone(&authority.0));
        let mut config = match identity {
            Some(Identity { chain, key }) => {
                builder.with_client_auth_cert(chain, key).map_err(TlsFault::BadIdentity)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        let server_name = server_name.map(host_name).transpose()?;
        Ok(Self { config: Arc::new(config), server_name })
    }
}

/// How a server lets clients in.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// With `clients`, only clients with a certificate of that authority get in.
    ///
    /// # Panics
    ///
    /// Never: *ring* has TLS 1.3.
    pub fn new(identity: Identity, clients: Option<Authority>) -> Result<Self, TlsFault> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3");
        let builder = match clients {
            Some(Authority(roots)) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(TlsFault::BadAuthority)?,
            ),
            None => builder.with_no_client_auth(),
        };
        let Identity { chain, key } = identity;
        let mut config = builder.with_single_cert(chain, key).map_err(TlsFault::BadIdentity)?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// What accepts connections.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        Arc::clone(&self.config).into()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A name that a certificate may be for.
pub(crate) fn host_name(name: &str) -> Result<ServerName<'static>, TlsFault> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsFault::BadName(name.to_owned()))
}

/// Why a handshake failed, with what to do about it.
#[derive(Debug)]
pub struct Distrust(Error);

impl Distrust {
    pub(crate) fn find(error: &std::io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().cloned().map(Self)
    }
}

impl std::error::Error for Distrust {}

/// Alerts are what the coordinator says of this end's certificate; the rest is what this end says of the
/// coordinator's.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has some hundred errors, and adds more")]
impl Display for Distrust {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sentence = match &self.0 {
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                "the coordinator wants a certificate of its clients; give one that its --client-ca has \
                 signed with --tls-cert and --tls-key"
            }
            Error::AlertReceived(AlertDescription::CertificateExpired) => {
                "the coordinator says that the certificate in --tls-cert has expired; have a new one signed"
            }
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::DecryptError,
            ) => {
                "the coordinator does not accept the certificate in --tls-cert; give one that its \
                 --client-ca has signed"
            }
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "the coordinator's certificate has expired; start it with a new one as --tls-cert",
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => {
                "the coordinator's certificate is for another name; connect to the name that it is for, or \
                 give that name with --tls-server-name"
            }
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                "the coordinator's certificate was not signed by the authority in --tls-ca; give the \
                 certificate of the one that did"
            }
            Error::InvalidMessage(_) => {
                "what answers there does not speak TLS; start the coordinator with --tls-cert and \
                 --tls-key, or connect with http://"
            }
            other => return write!(f, "the TLS handshake failed: {other}"),
        };
        f.write_str(sentence)
    }
}
