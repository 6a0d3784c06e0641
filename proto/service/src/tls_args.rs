//! The options that name certificates and keys, and the files behind them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use lockstep_proto::Destination;
use lockstep_proto::tls::{
    Authority, ClientTls, Identity, ServerTls, TlsFault, chain_from_pem, key_from_pem,
};

/// How a client of the coordinator connects.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientTlsArgs {
    /// Certificate of the authority that signed the coordinator's, for an address with https://
    #[arg(long, value_name = "FILE.pem")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show to the coordinator, where it wants one
    #[arg(long, value_name = "FILE.pem", requires = "tls_key", requires = "tls_ca")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Name that the coordinator's certificate is for [default: the host in its address]
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    pub tls_server_name: Option<String>,
}

impl ClientTlsArgs {
    /// The coordinator at `uri`, reached as these options say.
    pub fn destination(&self, uri: &str) -> anyhow::Result<Destination> {
        let Some(ca) = &self.tls_ca else { return Ok(Destination::plain(uri)) };
        let authority = read(ca, Authority::from_pem)?;
        let identity = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let identity = identity.map(|(cert, key)| identity_of(cert, key)).transpose()?;
        let tls = ClientTls::new(&authority, identity, self.tls_server_name.as_deref())
            .context("set up TLS from --tls-ca, --tls-cert, --tls-key and --tls-server-name")?;
        Ok(Destination::new(uri, Some(tls)))
    }
}

/// How the coordinator lets clients in.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerTlsArgs {
    /// Certificate of this coordinator, and those that link it to its authority; clients then connect with
    /// https://
    #[arg(long, value_name = "FILE.pem", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Lets only clients in whose certificate this authority has signed
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
}

impl ServerTlsArgs {
    /// What the options say; `None` where clients connect without TLS.
    pub fn load(&self) -> anyhow::Result<Option<ServerTls>> {
        let Some((cert, key)) = self.tls_cert.as_deref().zip(self.tls_key.as_deref()) else {
            return Ok(None);
        };
        let identity = identity_of(cert, key)?;
        let clients =
            self.client_ca.as_deref().map(|path| read(path, Authority::from_pem)).transpose()?;
        let tls = ServerTls::new(identity, clients)
            .context("set up TLS from --tls-cert, --tls-key and --client-ca")?;
        Ok(Some(tls))
    }
}

fn identity_of(cert: &Path, key: &Path) -> anyhow::Result<Identity> {
    Ok(Identity::new(read(cert, chain_from_pem)?, read(key, key_from_pem)?))
}

fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, TlsFault>) -> anyhow::Result<T> {
    let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    parse(&pem).with_context(|| format!("use {} for TLS", path.display()))
}
