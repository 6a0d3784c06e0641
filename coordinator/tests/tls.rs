//! Who gets in by TLS, who does not, and what both sides say about it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::time::Duration;

use lockstep_proto::{Exit, SessionClient, SessionError, StatusClient, Verdict};
use lockstep_service::telemetry::chain;
use lockstep_service::tls_args::ClientTlsArgs;
use support::certificates::{Authority, Signed, Validity};
use support::process::{Process, log_of};
use support::*;
use tempfile::TempDir;

/// A coordinator for one worker that wants certificates of `authority`.
struct Guarded {
    coordinator: Coordinator,
    authority: Authority,
    folder: TempDir,
}

#[tokio::test]
async fn a_worker_with_a_certificate_of_the_authority_joins_and_forms_a_world() {
    let guarded = Guarded::start().await;
    let own = guarded.authority.sign("worker", Validity::Now);
    let mut worker = guarded.join(&guarded.authority.client(Some(&own))).await.unwrap();
    worker.enlist().await;
    assert_eq!(worker.world().await.members.len(), 1);
    assert_eq!(guarded.refused("handshakes").await, 0);
}

#[tokio::test]
async fn a_worker_without_a_certificate_is_told_to_bring_one() {
    let guarded = Guarded::start().await;
    let words = guarded.refusal(&guarded.authority.client(None)).await;
    assert_eq!(
        words,
        "the coordinator wants a certificate of its clients; give one that its --client-ca has signed with \
         --tls-cert and --tls-key"
    );
    assert_eq!(guarded.refused("handshakes").await, 1);
}

#[tokio::test]
async fn a_worker_of_another_authority_is_told_whose_signature_counts() {
    let guarded = Guarded::start().await;
    let other = Authority::new(guarded.folder.path(), "other");
    let own = other.sign("worker", Validity::Now);
    let words = guarded.refusal(&guarded.authority.client(Some(&own))).await;
    assert_eq!(
        words,
        "the coordinator does not accept the certificate in --tls-cert; give one that its --client-ca has \
         signed"
    );
    assert_eq!(guarded.refused("handshakes").await, 1);
}

#[tokio::test]
async fn the_coordinators_log_tells_who_was_turned_away_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let own = authority.sign("localhost", Validity::Now);
    let paths = [own.cert, own.key, authority.file.clone()].map(|path| path.display().to_string());
    let [cert, key, ca] = &paths;
    let args = ["--tls-cert", cert, "--tls-key", key, "--client-ca", ca];
    let process = Process::start(folder.path(), 0, &args).await;
    let uri = process.destination.uri().replace("127.0.0.1", "localhost");
    let destination = authority.client(None).destination(&uri).unwrap();
    Worker::join_at(&destination, "w0").await.err().expect("it is refused");
    // The worker may know before the log does.
    let logged = async {
        while !log_of(folder.path()).contains("peer sent no certificates") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    drop(tokio::time::timeout(PATIENCE, logged).await);
    let log = log_of(folder.path());
    assert!(log.contains("refused a client at the TLS handshake"), "{log}");
    assert!(log.contains("peer sent no certificates"), "{log}");
    assert!(log.contains("peer=127.0.0.1:"), "{log}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_either_side() {
    let guarded = Guarded::start().await;
    let own = guarded.authority.sign("worker", Validity::Over);
    let words = guarded.refusal(&guarded.authority.client(Some(&own))).await;
    assert_eq!(
        words,
        "the coordinator says that the certificate in --tls-cert has expired; have a new one signed"
    );
    assert_eq!(guarded.refused("handshakes").await, 1);

    let guarded =
        Guarded::start_with(|authority| authority.sign("localhost", Validity::Over)).await;
    let own = guarded.authority.sign("worker", Validity::Now);
    let words = guarded.refusal(&guarded.authority.client(Some(&own))).await;
    assert_eq!(
        words,
        "the coordinator's certificate has expired; start it with a new one as --tls-cert"
    );
}

#[tokio::test]
async fn a_worker_trusts_no_coordinator_of_another_authority_or_name() {
    let guarded = Guarded::start().await;
    let other = Authority::new(guarded.folder.path(), "other");
    let own = guarded.authority.sign("worker", Validity::Now);
    let words = guarded.refusal(&other.client(Some(&own))).await;
    assert_eq!(
        words,
        "the coordinator's certificate was not signed by the authority in --tls-ca; give the certificate of \
         the one that did"
    );
    let renamed = ClientTlsArgs {
        tls_server_name: Some("elsewhere".into()),
        ..guarded.authority.client(Some(&own))
    };
    let words = guarded.refusal(&renamed).await;
    assert!(words.starts_with("the coordinator's certificate is for another name"), "{words}");
    assert!(words.contains("--tls-server-name"), "{words}");
}

#[tokio::test]
async fn an_order_without_the_token_is_refused_logged_and_counted() {
    let guarded = Guarded::start().await;
    let own = guarded.authority.sign("operator", Validity::Now);
    let tls = guarded.flags(&own);
    let stop = |more: &[&str]| {
        let args = ["stop", "--addr", &guarded.uri()].map(str::to_owned);
        let more = more.iter().map(|text| (*text).to_owned());
        args.into_iter().chain(tls.clone()).chain(more).collect::<Vec<_>>()
    };
    let failure = asked(&stop(&[])).await.unwrap_err();
    assert_eq!(failure.exit, Exit::ConfigFault);
    let words = format!("{:#}", failure.error);
    assert!(words.contains("the coordinator wants its operator token"), "{words}");
    assert_eq!(guarded.refused("orders").await, 1);
    assert_eq!(guarded.refused("handshakes").await, 0);

    let token = guarded.folder.path().join("token").display().to_string();
    asked(&stop(&["--token-file", &token])).await.unwrap();
    assert_eq!(guarded.coordinator.ended().await, Exit::Done);
}

#[tokio::test]
async fn neither_end_waits_for_one_that_does_not_speak_tls() {
    let guarded = Guarded::start().await;
    let plain =
        ClientTlsArgs::default().destination(&guarded.coordinator.uri.replace("https", "http"));
    let error = SessionClient::connect(&plain.unwrap(), hello("w0")).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::GiveUp, "{}", chain(&error));
    let words = error.to_string();
    assert!(words.contains("speaks TLS; connect with https:// and --tls-ca"), "{words}");
    assert_eq!(guarded.refused("handshakes").await, 1);

    let open = Coordinator::start(options(1)).await;
    let uri = open.uri.replace("http://127.0.0.1", "https://localhost");
    let destination = guarded.authority.client(None).destination(&uri).unwrap();
    let error = StatusClient::connect(&destination).await.unwrap_err();
    assert!(chain(&error).contains("what answers there does not speak TLS"), "{}", chain(&error));
    let unprepared = ClientTlsArgs::default().destination(&uri).unwrap();
    let error = StatusClient::connect(&unprepared).await.unwrap_err();
    assert!(matches!(error, SessionError::NoAuthority { .. }), "{error}");
}

#[tokio::test]
async fn files_that_hold_something_else_are_named() {
    let guarded = Guarded::start().await;
    let own = guarded.authority.sign("worker", Validity::Now);
    let swapped = Signed { cert: own.key.clone(), key: own.cert.clone() };
    for (args, words) in [
        (
            guarded.authority.client(Some(&swapped)),
            "worker-key.pem for TLS: it holds no certificate",
        ),
        (
            guarded.authority.client(Some(&Signed { key: own.cert.clone(), ..own.clone() })),
            "worker-cert.pem for TLS: it holds no private key",
        ),
    ] {
        let error = format!("{:#}", args.destination("https://localhost:1").unwrap_err());
        assert!(error.contains(words), "{error}");
    }
    let error = guarded.authority.server(&swapped).load().unwrap_err();
    assert!(format!("{error:#}").contains("it holds no certificate"), "{error:#}");
}

#[test]
fn exactly_one_crypto_provider_is_linked_in() {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    assert!(lock.contains("name = \"ring\""));
    assert!(!lock.contains("aws-lc"), "rustls panics where a process has two providers");
}

impl Guarded {
    async fn start() -> Self {
        Self::start_with(|authority| authority.sign("localhost", Validity::Now)).await
    }

    async fn start_with(sign: impl FnOnce(&Authority) -> Signed) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let token = folder.path().join("token");
        std::fs::write(&token, "correct-horse-battery").unwrap();
        let mut options = options(1);
        options.tls = authority.server(&sign(&authority));
        options.operator_token_file = Some(token);
        Self { coordinator: Coordinator::start(options).await, authority, folder }
    }

    /// Its address under the name that its certificate is for.
    fn uri(&self) -> String {
        self.coordinator.uri.replace("127.0.0.1", "localhost")
    }

    fn flags(&self, own: &Signed) -> Vec<String> {
        let files = [
            ("--tls-ca", &self.authority.file),
            ("--tls-cert", &own.cert),
            ("--tls-key", &own.key),
        ];
        files
            .into_iter()
            .flat_map(|(flag, file)| [flag.into(), file.display().to_string()])
            .collect()
    }

    async fn join(&self, tls: &ClientTlsArgs) -> Result<Worker, SessionError> {
        let destination = tls.destination(&self.uri()).unwrap();
        Worker::join_at(&destination, "w0").await
    }

    /// What a client that must not get in is told.
    async fn refusal(&self, tls: &ClientTlsArgs) -> String {
        let error = self.join(tls).await.err().expect("it is refused");
        assert_eq!(error.verdict(), Verdict::GiveUp, "{}", chain(&error));
        let SessionError::Distrust { source, .. } = error else { panic!("{}", chain(&error)) };
        source.to_string()
    }

    /// A counter of refusals, as Prometheus sees it.
    async fn refused(&self, what: &str) -> u64 {
        let text = http_get(self.coordinator.metrics, "/metrics").await;
        let name = format!("lockstep_refused_{what}_total ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("the counter is there").parse().unwrap()
    }
}

async fn asked(args: &[String]) -> Result<String, lockstep_service::exit::Failure> {
    ask(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
}
