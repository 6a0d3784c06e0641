//! A data set's URL and the environment to a client of its store.

use std::path::Path;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use crate::fault::Fault;
use crate::secrets::Secrets;

/// Longest time of one request; silence ends it sooner (`fetch.rs`).
const REQUEST_TIMEOUT: &str = "1 h";
const SCHEMES: &str =
    "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or http(s)://HOST/PATH";

/// Whether a data set is named by a URL; otherwise it is a folder.
pub fn is_url(place: &Path) -> bool {
    place.to_str().is_some_and(|text| text.contains("://"))
}

/// Where a data set lies in a store, and the client to reach it.
pub(crate) struct Place {
    /// As the user gave it, without a slash at the end. Holds no credential.
    pub(crate) url: String,
    pub(crate) prefix: object_store::path::Path,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) provider: Provider,
    pub(crate) secrets: Secrets,
}

/// Whose store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    S3,
    Google,
    Azure,
    Http,
}

impl Provider {
    /// What to do when the store refuses.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::S3 => {
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and, for a store \
                 that is not Amazon's, AWS_ENDPOINT_URL (with AWS_ALLOW_HTTP=true where it has no TLS), or set \
                 AWS_SKIP_SIGNATURE=true for a public bucket"
            }
            Self::Google => {
                "check GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY, or set \
                 GOOGLE_SKIP_SIGNATURE=true for a public bucket"
            }
            Self::Azure => {
                "check AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or set \
                 AZURE_SKIP_SIGNATURE=true for a public container"
            }
            Self::Http => {
                "this program sends no credentials to plain web servers: let it read there without"
            }
        }
    }

    /// How the environment variables begin that are for it.
    fn variables(self) -> Option<&'static str> {
        match self {
            Self::S3 => Some("AWS_"),
            Self::Google => Some("GOOGLE_"),
            Self::Azure => Some("AZURE_"),
            Self::Http => None,
        }
    }
}

impl Place {
    /// Parses a URL and makes a client with the credentials among `variables`, the environment's.
    pub(crate) fn new(url: &str, mut variables: Vec<(String, String)>) -> Result<Self, Fault> {
        let parsed = parse(url)?;
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|_| {
            Fault::refused(format!("is not a place of a data set: expected {SCHEMES}"))
        })?;
        let provider = match scheme {
            ObjectStoreScheme::AmazonS3 => Provider::S3,
            ObjectStoreScheme::GoogleCloudStorage => Provider::Google,
            ObjectStoreScheme::MicrosoftAzure => Provider::Azure,
            ObjectStoreScheme::Http => Provider::Http,
            ObjectStoreScheme::Local | ObjectStoreScheme::Memory | _ => {
                return Err(Fault::refused(format!("is not an object store: expected {SCHEMES}")));
            }
        };
        let ours = provider.variables();
        variables.retain(|(name, _)| ours.is_some_and(|start| name.starts_with(start)));
        let secrets = Secrets::of(&variables);
        // Where several TLS libraries are compiled in, one must be named; a second call changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let store = client(provider, &parsed, &variables).map_err(|error| {
            let problem = secrets.scrub(&error.to_string());
            Fault::refused(format!("cannot be reached: {problem}; {}", provider.advice()))
        })?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), prefix, store, provider, secrets })
    }
}

/// A URL without anything in it that may be a credential, for the message that refuses it.
pub(crate) fn shown(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return "the URL of the data set".to_owned() };
    parsed.set_query(None);
    parsed.set_fragment(None);
    let keeps_user = parsed.scheme().starts_with("abfs");
    let cleared =
        parsed.set_password(None).is_ok() && (keeps_user || parsed.set_username("").is_ok());
    if cleared || !parsed.has_authority() {
        parsed.to_string()
    } else {
        "the URL of the data set".to_owned()
    }
}

/// The URL, if it holds nothing but a place.
fn parse(url: &str) -> Result<Url, Fault> {
    let parsed = Url::parse(url)
        .map_err(|error| Fault::refused(format!("is not a URL: {error}; expected {SCHEMES}")))?;
    // Azure's abfss://CONTAINER@ACCOUNT.… names a container there.
    let names_user = !parsed.username().is_empty() && !parsed.scheme().starts_with("abfs");
    let secret = names_user || parsed.password().is_some() || parsed.query().is_some();
    if secret || parsed.fragment().is_some() {
        return Err(Fault::refused(
            "must end with the path of the data set: credentials are taken from the environment only",
        ));
    }
    Ok(parsed)
}

/// The client of a store. Retries are ours (`fetch.rs`): they go on where a body broke, and with keyed jitter.
fn client(
    provider: Provider,
    url: &Url,
    variables: &[(String, String)],
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let set = variables.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    macro_rules! build {
        ($builder:ty) => {{
            let mut builder = <$builder>::new().with_url(url.as_str()).with_retry(retry);
            builder = builder.with_config("timeout".parse()?, REQUEST_TIMEOUT);
            for (name, value) in set {
                // Variables that mean nothing to the client are for other programs.
                if let Ok(key) = name.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            Ok(Arc::new(builder.build()?))
        }};
    }
    match provider {
        Provider::S3 => build!(AmazonS3Builder),
        Provider::Google => build!(GoogleCloudStorageBuilder),
        Provider::Azure => build!(MicrosoftAzureBuilder),
        Provider::Http => {
            let plain = url.scheme() == "http";
            let builder = HttpBuilder::new()
                .with_url(url.origin().ascii_serialization())
                .with_retry(retry)
                .with_config(ClientConfigKey::Timeout, REQUEST_TIMEOUT)
                .with_config(ClientConfigKey::AllowHttp, plain.to_string())
                // A machine without certificates can do without TLS.
                .with_config(ClientConfigKey::NoSystemCertificates, plain.to_string());
            Ok(Arc::new(builder.build()?))
        }
    }
}
