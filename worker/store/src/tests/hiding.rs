//! No credential in anything that people see.

use std::io::Write;
use std::sync::Mutex;

use super::*;

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "FwoGZXIvYXdzEBYaDHtEST0TOKEN";
const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq";
const SIGNATURE: &str = "s3cr3tSignatureOfTheSasToken%2Fxyz%3D";

/// Everything that is logged, at any level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn variables(server: &Server) -> Vec<(String, String)> {
    let endpoint = format!("http://{}", server.address);
    let set = [
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", SESSION),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ENDPOINT", &endpoint),
        ("AZURE_ALLOW_HTTP", "true"),
    ];
    set.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// What is said and shown on the way to an error, for each answer of the store.
fn said(url: &str, more: &[(&str, &str)], says: Fate) -> String {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(folder.path(), move |_, _| says);
    let mut variables = variables(&server);
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let config = config(&folder, Reads::Whole, ROOMY);
    let files = match StoreFiles::with_patience(url, &config, variables, impatient()) {
        Ok(files) => files,
        Err(error) => return format!("{error} {error:?}"),
    };
    let shown = format!("{files:?}");
    let error = Dataset::of(Box::new(files)).unwrap_err();
    assert!(!server.requests().is_empty(), "it never asked: {error}");
    let sent = server.requests()[0].text.clone();
    assert!(
        sent.contains(ID) || sent.contains("sig=") || sent.contains("SharedKey"),
        "unsigned: {sent}"
    );
    format!("{shown} {error} {error:?}")
}

#[test]
fn no_credential_is_logged_shown_or_part_of_an_error() {
    let log = Log::default();
    let writer = log.clone();
    // For all threads: requests are made on those of the store.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let sas = format!("sv=2024-11-04&sp=rl&sig={SIGNATURE}");
    let bad_json = format!("{{\"private_key\": \"{SECRET}\", \"client_email\": 5");
    let mut all = String::new();
    for status in [403, 401, 400, 500] {
        let says = Fate::Status(status);
        all += &said("s3://bucket/set", &[], says);
        all += &said("az://container/set", &[("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)], says);
        all += &said("az://container/set", &[("AZURE_STORAGE_SAS_TOKEN", &sas)], says);
    }
    all += &said("gs://bucket/set", &[("GOOGLE_SERVICE_ACCOUNT_KEY", &bad_json)], Fate::Served);
    assert!(
        all.contains("AWS_SECRET_ACCESS_KEY") && all.contains("AZURE_STORAGE_SAS_TOKEN"),
        "{all}"
    );
    assert!(all.contains("GOOGLE_SERVICE_ACCOUNT_KEY"), "{all}");
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("fetching again after a failure"), "{logged}");
    let plain = "s3cr3tSignatureOfTheSasToken/xyz=";
    for secret in [SECRET, SESSION, AZURE_KEY, SIGNATURE, plain] {
        assert!(!all.contains(secret), "{secret} in {all}");
        let line = logged.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is logged: {line:?}");
    }
    assert!(!all.contains(ID), "{ID} in {all}");
}
