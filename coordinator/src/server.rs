//! Everything is bound before anything starts, and stopped in order.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures_util::Stream;
use futures_util::stream::unfold;
use lockstep_core::{Core, EventLog, Settings};
use lockstep_proto::limits::{MAX_STREAMS, SECRET_BYTES};
use lockstep_proto::server::{SERVICE_NAMES, operator_server, session_server, status_server};
use lockstep_proto::tls::ServerTls;
use lockstep_proto::{Exit, FILE_DESCRIPTOR_SET, Secret};
use lockstep_service::listen::listen;
use lockstep_service::metrics_http;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;

use crate::accept;
use crate::gate::{Gate, read_token};
use crate::grpc::{Answers, Operators, Sessions};
use crate::history::History;
use crate::journal::Journal;
use crate::metrics::{self, Refusals};
use crate::options::Options;
use crate::shell::{Outlets, Shell};
use crate::store::Store;

/// Requests that may wait for the loop.
const REQUEST_QUEUE: usize = 64;
/// How long a stream may take to say hello, and a question to be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which HTTP/2 asks whether the other end is still there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long open streams may take to end.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// A coordinator that is bound to its ports and has not started.
#[derive(Debug)]
pub struct Server {
    options: Options,
    grpc: TcpListener,
    http: TcpListener,
    store: Option<Store>,
    history: Option<History>,
    events: EventLog,
    gate: Gate,
    tls: Option<ServerTls>,
}

impl Server {
    /// Opens everything that the options name.
    pub async fn bind(options: Options) -> anyhow::Result<Self> {
        let grpc = listen(options.listen, "--listen").await?;
        let http = listen(options.metrics_listen, "--metrics-listen").await?;
        let opened = options.state_dir.as_deref().map(|dir| Store::open(dir, &options.config));
        let (store, events) = opened.transpose()?.unzip();
        let history = options.reports.as_deref().map(History::open).transpose()?;
        let token = options.operator_token_file.as_deref().map(read_token).transpose()?;
        let gate = Gate::new(token.as_deref(), options.listen);
        let tls = options.tls.load()?;
        if token.is_some() && tls.is_none() && !options.listen.ip().is_loopback() {
            tracing::warn!(
                listen = %options.listen,
                "operators send their token in plain text; start with --tls-cert and --tls-key"
            );
        }
        Ok(Self {
            options,
            grpc,
            http,
            store,
            history,
            events: events.unwrap_or_default(),
            gate,
            tls,
        })
    }

    /// Where workers connect.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.grpc.local_addr().context("find the port of the coordinator")
    }

    /// Where workers connect, as they are told it.
    pub fn uri(&self) -> anyhow::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.address()?))
    }

    /// Where `/metrics` is.
    pub fn metrics_address(&self) -> anyhow::Result<SocketAddr> {
        self.http.local_addr().context("find the port of the metrics")
    }

    /// Coordinates until the run is over, or until `stop` has asked for it.
    pub async fn run(self, stop: impl Stream<Item = ()> + Unpin) -> anyhow::Result<Exit> {
        let uri = self.uri()?;
        tracing::info!(metrics = %self.metrics_address()?, "listening on {uri}");
        if let Some(path) = &self.options.port_file {
            write_port_file(path, &uri)?;
        }
        let core = Core::new(Settings {
            config: self.options.config,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: random_secret()?,
            memory: self.store.as_ref().map(|store| store.memory().clone()).unwrap_or_default(),
            started: unix_time(),
            next_event: self.events.next(),
            paused: self.events.paused(),
        });
        let (status, status_watcher) = watch::channel(core.status());
        let (log, log_watcher) = watch::channel(self.events);
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let journal = Journal::new(self.store);
        let outlets = Outlets { status, log, journal, history: self.history };
        let (shell, events) = Shell::new(core, outlets);

        let shutdown = CancellationToken::new();
        let mut servers = JoinSet::new();
        let refusals = Refusals::default();
        let registry = Arc::new(metrics::registry(status_watcher.clone(), &refusals));
        servers.spawn(serve_http(self.http, registry, shutdown.clone()));
        let answers = Answers { shell: requests.clone(), status: status_watcher, log: log_watcher };
        let operators =
            Operators { shell: requests.clone(), gate: self.gate, refused: refusals.orders };
        let sessions = Sessions { shell: requests };
        let services = (sessions, answers, operators);
        let (listener, shutdown_grpc) = (self.grpc, shutdown.clone());
        if let Some(tls) = self.tls {
            let incoming = accept::encrypted(listener, tls.acceptor(), refusals.handshakes);
            servers.spawn(serve_grpc(incoming, services, shutdown_grpc));
        } else {
            servers.spawn(serve_grpc(accept::plain(listener), services, shutdown_grpc));
        }

        let exit = tokio::select! {
            exit = shell.run(events, request_queue, stop) => exit,
            Some(ended) = servers.join_next() => Err(server_ended(ended)),
        };
        shutdown.cancel();
        // A stream that does not end is dropped with its server.
        if tokio::time::timeout(SHUTDOWN, servers.join_all()).await.is_err() {
            tracing::debug!("some streams did not end in time");
        }
        exit
    }
}

/// A server ends only when it is told to; anything else ends the coordinator.
fn server_ended(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("a server ended without being told to"),
        Ok(Err(error)) => error,
        Err(panicked) => anyhow::Error::new(panicked).context("a server panicked"),
    }
}

async fn serve_http(
    listener: TcpListener,
    registry: Arc<prometheus_client::registry::Registry>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    metrics_http::serve(listener, registry, shutdown).await.context("serve the metrics")
}

async fn serve_grpc<C>(
    incoming: impl Stream<Item = std::io::Result<C>>,
    (sessions, answers, operators): (Sessions, Answers, Operators),
    shutdown: CancellationToken,
) -> anyhow::Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in SERVICE_NAMES {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    tonic::transport::Server::builder()
        .timeout(ANSWER_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(session_server(sessions))
        .add_service(status_server(answers))
        .add_service(operator_server(operators))
        .add_service(health_service)
        .add_service(reflection().build_v1().context("describe the services")?)
        // Some generic clients speak only the older version.
        .add_service(reflection().build_v1alpha().context("describe the services")?)
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .context("serve gRPC")
}

/// The file is either the old one or the whole new one, whenever someone reads it.
fn write_port_file(path: &Path, uri: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        writeln!(file, "{uri}")?;
        file.persist(path)?;
        std::io::Result::Ok(())
    };
    write().with_context(|| format!("write the port file {}", path.display()))
}

/// Time since 1970 (UTC).
#[expect(clippy::disallowed_methods, reason = "the coordinator's one clock")]
fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn random_secret() -> anyhow::Result<Secret> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).context("ask the operating system for randomness")?;
    Ok(Secret(secret))
}

/// One item per Ctrl-C or SIGTERM.
pub fn stop_signals() -> anyhow::Result<impl Stream<Item = ()> + Unpin> {
    let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    Ok(Box::pin(unfold((interrupt, terminate), |(mut interrupt, mut terminate)| async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Some(((), (interrupt, terminate)))
    })))
}
