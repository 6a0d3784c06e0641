//! A coordinator on loopback, and workers that speak its protocol without training.
#![allow(dead_code, reason = "every test file uses its own part of it")]

pub(crate) mod certificates;
pub(crate) mod process;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use coordinator::cli::Cli;
use coordinator::options::Options;
use coordinator::server::Server;
use lockstep_proto::ids::{Cursor, Digest, Generation, Rank, Step, WorkerUid};
use lockstep_proto::layers::Layers;
use lockstep_proto::{
    Backend, CoordinatorMessage, DataSet, Destination, Enlist, Exit, Hello, PROTOCOL_VERSION,
    RunStatus, SessionClient, SessionError, SessionMessages, SessionSender, StatusClient,
    StepReport, StepReports, Welcome, WorkerMessage, World, WorldEnd, WorldEnded,
};
use lockstep_service::exit::Failure;
use lockstep_service::tls_args::ServerTlsArgs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

/// Longest wait for anything; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A coordinator of the preset `tiny`.
pub(crate) struct Coordinator {
    pub(crate) uri: String,
    pub(crate) destination: Destination,
    pub(crate) metrics: SocketAddr,
    pub(crate) stop: mpsc::Sender<()>,
    ended: JoinHandle<anyhow::Result<Exit>>,
}

pub(crate) fn options(world: u32) -> Options {
    let layers = Layers {
        preset: Some("tiny".into()),
        flags: vec![("run.world".into(), world.to_string())],
        ..Layers::default()
    };
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    Options {
        config: layers.resolve().expect("the preset is valid").config,
        listen: any_port,
        metrics_listen: any_port,
        state_dir: None,
        reports: None,
        operator_token_file: None,
        tls: ServerTlsArgs::default(),
        port_file: None,
    }
}

impl Coordinator {
    pub(crate) async fn start(options: Options) -> Self {
        let server = Server::bind(options).await.expect("any port is free");
        let uri = server.uri().expect("it is bound");
        let metrics = server.metrics_address().expect("it is bound");
        let (stop, stops) = mpsc::channel(2);
        let ended = tokio::spawn(server.run(ReceiverStream::new(stops)));
        let destination = Destination::plain(&uri);
        Self { uri, destination, metrics, stop, ended }
    }

    /// Ends it without a word, as a crash does.
    pub(crate) async fn kill(self) {
        self.ended.abort();
        assert!(self.ended.await.expect_err("it had no time to end").is_cancelled());
    }

    pub(crate) async fn ended(self) -> Exit {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("it ends in time");
        ended.expect("it does not panic").expect("it does not fail")
    }
}

/// A worker's session.
pub(crate) struct Worker {
    pub(crate) sender: SessionSender,
    pub(crate) messages: SessionMessages,
}

pub(crate) fn hello(uid: &str) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        run_id: None,
        worker: WorkerUid(uid.into()),
        slot: None,
        host: "node".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        device: "cpu".into(),
        data: DataSet { fingerprint: "aaaa".into(), samples: 100_000, classes: 10 },
        member: None,
    }
}

impl Worker {
    /// Connects and takes the welcome.
    pub(crate) async fn join(coordinator: &Coordinator, uid: &str) -> Self {
        Self::join_at(&coordinator.destination, uid).await.expect("it is reachable")
    }

    pub(crate) async fn join_at(
        destination: &Destination,
        uid: &str,
    ) -> Result<Self, SessionError> {
        Ok(Self::connect(destination, hello(uid)).await?.0)
    }

    pub(crate) async fn connect(
        destination: &Destination,
        hello: Hello,
    ) -> Result<(Self, Welcome), SessionError> {
        let (sender, messages) = SessionClient::connect(destination, hello).await?;
        let mut worker = Self { sender, messages };
        let closed = || SessionError::Broken { reason: "it was closed at once".into() };
        let CoordinatorMessage::Welcome(welcome) = worker.answer().await.ok_or_else(closed)??
        else {
            panic!("the first message is a welcome")
        };
        assert_eq!(welcome.run_id, "tiny");
        Ok((worker, *welcome))
    }

    pub(crate) async fn enlist(&self) {
        self.say(enlist(Generation(0))).await;
    }

    pub(crate) async fn say(&self, message: WorkerMessage) {
        self.sender.send(message).await.expect("the session is open");
    }

    pub(crate) async fn answer(&mut self) -> Option<Result<CoordinatorMessage, SessionError>> {
        tokio::time::timeout(PATIENCE, self.messages.next()).await.expect("an answer in time")
    }

    pub(crate) async fn next(&mut self) -> CoordinatorMessage {
        self.answer().await.expect("the session goes on").expect("the session is well")
    }

    /// The next world, with its first plan.
    pub(crate) async fn world(&mut self) -> World {
        let CoordinatorMessage::World(world) = self.next().await else { panic!("a world") };
        let CoordinatorMessage::Plan(plan) = self.next().await else { panic!("a plan") };
        assert_eq!(plan.steps[0].step, world.start.step);
        world
    }

    pub(crate) async fn report(&self, generation: Generation, step: u64) {
        self.say(report(generation, step)).await;
    }

    pub(crate) async fn end(&self, generation: Generation, reason: WorldEnd) {
        self.say(ended(generation, reason)).await;
    }
}

/// Of a worker that was in no world after `ended`.
pub(crate) fn enlist(ended: Generation) -> WorkerMessage {
    let collective_address = SocketAddr::from(([127, 0, 0, 1], 9));
    let backend = Backend::Host;
    WorkerMessage::Enlist(Enlist { collective_address, state: None, ended, backend })
}

pub(crate) fn report(generation: Generation, step: u64) -> WorkerMessage {
    let report = StepReport {
        step: Step(step),
        cursor: Cursor(step),
        applied: true,
        loss: 3.25,
        z_std: 0.1,
        images: 32,
        duration: Duration::from_millis(500),
        data_wait: Duration::ZERO,
        probe_loss: None,
        probe_accuracy: Some(0.5),
        knn_accuracy: None,
        arrival_wait: None,
        digest: Some(Digest(step)),
        replaced_samples: Vec::new(),
    };
    WorkerMessage::Reports(StepReports { generation, reports: vec![report] })
}

pub(crate) fn ended(generation: Generation, reason: WorldEnd) -> WorkerMessage {
    let culprit = (reason == WorldEnd::Failed).then_some(Rank(1));
    let detail = String::new();
    WorkerMessage::WorldEnded(WorldEnded { generation, reason, detail, culprit })
}

/// A coordinator and two workers in their first world.
pub(crate) async fn pair(options: Options) -> (Coordinator, Worker, Worker, Generation) {
    let coordinator = Coordinator::start(options).await;
    let mut first = Worker::join(&coordinator, "w0").await;
    let mut second = Worker::join(&coordinator, "w1").await;
    first.enlist().await;
    second.enlist().await;
    let generation = first.world().await.generation;
    assert_eq!(second.world().await.generation, generation);
    (coordinator, first, second, generation)
}

/// What a command to a running coordinator prints.
pub(crate) async fn ask(args: &[&str]) -> Result<String, Failure> {
    let cli = Cli::try_parse_from([&["coordinator"], args].concat()).expect("a command line");
    let mut out = Vec::new();
    coordinator::ask(cli.command.expect("a subcommand"), &mut out).await?;
    Ok(String::from_utf8(out).expect("it prints text"))
}

/// What the coordinator answers over HTTP.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the metrics are served");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the metrics are served");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the metrics are served");
    answer
}

/// The run, once it is as wanted.
pub(crate) async fn when(
    client: &mut StatusClient,
    wanted: impl Fn(&RunStatus) -> bool,
) -> RunStatus {
    let mut changes = client.watch_run(Duration::from_millis(1)).await.expect("it answers");
    let seen = async {
        loop {
            let run = changes.next().await.expect("it goes on").expect("it is well");
            if wanted(&run) {
                return run;
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("it comes in time")
}
