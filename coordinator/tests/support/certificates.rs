//! A certificate authority in memory, and what it signs as files.

use std::path::{Path, PathBuf};

use lockstep_service::tls_args::{ClientTlsArgs, ServerTlsArgs};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

/// Whether a certificate can still be used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    Now,
    Over,
}

/// An authority; its files are in a folder of the test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its own certificate.
    pub(crate) file: PathBuf,
}

/// A signed certificate and its key.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("it signs itself");
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, issuer.pem()).expect("the folder can be written to");
        Self { issuer, folder: folder.to_owned(), file }
    }

    /// Signs a certificate for a host.
    pub(crate) fn sign(&self, host: &str, validity: Validity) -> Signed {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a host name");
        if validity == Validity::Over {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let own = key();
        let certificate = params.signed_by(&own, &self.issuer).expect("it signs");
        let file = |end| self.folder.join(format!("{host}-{end}.pem"));
        let signed = Signed { cert: file("cert"), key: file("key") };
        std::fs::write(&signed.cert, certificate.pem()).expect("the folder can be written to");
        std::fs::write(&signed.key, own.serialize_pem()).expect("the folder can be written to");
        signed
    }

    /// A server that shows `own` and wants certificates of this authority.
    pub(crate) fn server(&self, own: &Signed) -> ServerTlsArgs {
        ServerTlsArgs {
            tls_cert: Some(own.cert.clone()),
            tls_key: Some(own.key.clone()),
            client_ca: Some(self.file.clone()),
        }
    }

    /// A client that trusts this authority and shows `own`.
    pub(crate) fn client(&self, own: Option<&Signed>) -> ClientTlsArgs {
        ClientTlsArgs {
            tls_ca: Some(self.file.clone()),
            tls_cert: own.map(|own| own.cert.clone()),
            tls_key: own.map(|own| own.key.clone()),
            tls_server_name: None,
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}
