//! The gRPC services: they only pass on, to the shell and from it.

use std::time::Duration;

use futures_util::stream::{self, unfold};
use futures_util::{Stream, StreamExt};
use lockstep_core::EventLog;
use lockstep_proto::limits::{MAX_EVENTS, SESSION_QUEUE};
use lockstep_proto::server::{
    OperatorService, Outgoing, Refusal, SessionService, StatusService, WorkerMessages,
};
use lockstep_proto::{
    CoordinatorMessage, Hello, OperatorCommand, RunEvent, RunStatus, WorkerStatus,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot, watch};

use crate::gate::Gate;

/// Shortest pace of `WatchRun`, whatever a caller asks for.
const MIN_WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// Messages on their way to one worker.
pub(crate) type ToWorker = mpsc::Sender<Result<CoordinatorMessage, Refusal>>;

/// What the services ask of the shell.
#[derive(Debug)]
pub(crate) enum Request {
    /// A worker said hello.
    Join(Box<Joining>),
    /// Someone wants to see the workers.
    Workers(oneshot::Sender<Vec<WorkerStatus>>),
    /// An operator who may wants something.
    Operate(OperatorCommand, oneshot::Sender<Result<String, Refusal>>),
}

/// A new session.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) hello: Hello,
    pub(crate) incoming: WorkerMessages,
    pub(crate) outgoing: ToWorker,
}

/// Accepts workers.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) shell: mpsc::Sender<Request>,
}

impl SessionService for Sessions {
    async fn join(&self, hello: Hello, incoming: WorkerMessages) -> Result<Outgoing, Refusal> {
        let (outgoing, to_worker) = mpsc::channel(SESSION_QUEUE);
        let joining = Box::new(Joining { hello, incoming, outgoing });
        self.shell.send(Request::Join(joining)).await.map_err(|_| ending())?;
        Ok(to_worker)
    }
}

/// Answers questions.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) shell: mpsc::Sender<Request>,
    pub(crate) status: watch::Receiver<RunStatus>,
    pub(crate) log: watch::Receiver<EventLog>,
}

impl StatusService for Answers {
    fn run(&self) -> RunStatus {
        self.status.borrow().clone()
    }

    fn watch(&self, min_interval: Duration) -> impl Stream<Item = RunStatus> + Send + 'static {
        let mut status = self.status.clone();
        status.mark_changed();
        let interval = min_interval.max(MIN_WATCH_INTERVAL);
        unfold((status, Duration::ZERO), move |(mut status, pause)| async move {
            tokio::time::sleep(pause).await;
            status.changed().await.ok()?;
            let run = status.borrow_and_update().clone();
            Some((run, (status, interval)))
        })
    }

    async fn workers(&self) -> Result<Vec<WorkerStatus>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.shell.send(Request::Workers(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    fn events(&self, since: u64) -> Vec<RunEvent> {
        self.log.borrow().since(since, MAX_EVENTS)
    }

    fn follow(&self, since: u64) -> impl Stream<Item = RunEvent> + Send + 'static {
        unfold((self.log.clone(), since), |(mut log, since)| async move {
            // Its sender closes it behind the last event.
            log.wait_for(|log| log.next() > since.max(1)).await.ok()?;
            let page = log.borrow().since(since, MAX_EVENTS);
            let next = page.last()?.sequence + 1;
            Some((stream::iter(page), (log, next)))
        })
        .flatten()
    }
}

/// Takes orders.
#[derive(Debug)]
pub(crate) struct Operators {
    pub(crate) shell: mpsc::Sender<Request>,
    pub(crate) gate: Gate,
    /// How many were turned away.
    pub(crate) refused: Counter,
}

impl OperatorService for Operators {
    fn admit(&self, token: Option<&[u8]>) -> Result<(), Refusal> {
        self.gate.admit(token).inspect_err(|refusal| {
            self.refused.inc();
            tracing::warn!(reason = %refusal, "refused an order");
        })
    }

    async fn operate(&self, command: OperatorCommand) -> Result<String, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.shell.send(Request::Operate(command, reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }
}

fn ending() -> Refusal {
    Refusal::Unavailable("the coordinator is ending".into())
}
