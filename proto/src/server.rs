//! The gRPC services in terms of checked types: the coordinator implements two traits and never
//! sees a wire type.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::border::{Border, Malformed};
use crate::coordinator_message::CoordinatorMessage;
use crate::ids::WorkerUid;
use crate::limits::MAX_MESSAGE_BYTES;
use crate::operator::OperatorCommand;
use crate::run_event::RunEvent;
use crate::status::{RunStatus, WorkerStatus};
use crate::wire;
use crate::wire::operator_server::{Operator as WireOperator, OperatorServer};
use crate::wire::session_server::{Session as WireSession, SessionServer};
use crate::wire::status_server::{Status as WireStatus, StatusServer};
use crate::worker_message::{Hello, WorkerMessage};

/// Full names of the services made here, for health checks.
pub const SERVICE_NAMES: [&str; 3] = [
    wire::session_server::SERVICE_NAME,
    wire::status_server::SERVICE_NAME,
    wire::operator_server::SERVICE_NAME,
];

/// Pace of `WatchRun` where the caller names none.
const DEFAULT_WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Header that carries an operator's token, and what stands before it.
pub(crate) const AUTHORIZATION: &str = "authorization";
pub(crate) const BEARER: &[u8] = b"Bearer ";

/// Why a worker is turned away, at hello or later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not fit this run and never will; gRPC `FAILED_PRECONDITION`.
    #[error("{0}")]
    Mismatch(String),
    /// There is no place for it now; gRPC `RESOURCE_EXHAUSTED`.
    #[error("{0}")]
    Full(String),
    /// It broke the protocol; gRPC `INVALID_ARGUMENT`.
    #[error("{0}")]
    Protocol(String),
    /// Not now, or the coordinator is going away; gRPC `UNAVAILABLE`.
    #[error("{0}")]
    Unavailable(String),
    /// Whoever asks has not shown that it may; gRPC `PERMISSION_DENIED`.
    #[error("{0}")]
    Denied(String),
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Mismatch(reason) => Self::failed_precondition(reason),
            Refusal::Full(reason) => Self::resource_exhausted(reason),
            Refusal::Protocol(reason) => Self::invalid_argument(reason),
            Refusal::Unavailable(reason) => Self::unavailable(reason),
            Refusal::Denied(reason) => Self::permission_denied(reason),
        }
    }
}

/// Messages to one worker; an `Err` closes the session with that refusal.
pub type Outgoing = mpsc::Receiver<Result<CoordinatorMessage, Refusal>>;

/// Accepts workers.
pub trait SessionService: Send + Sync + 'static {
    /// A worker said hello. What the returned queue yields is sent to it; when the queue closes,
    /// the session is over.
    fn join(
        &self,
        hello: Hello,
        incoming: WorkerMessages,
    ) -> impl Future<Output = Result<Outgoing, Refusal>> + Send;
}

/// Answers questions about the run.
pub trait StatusService: Send + Sync + 'static {
    /// The run now.
    fn run(&self) -> RunStatus;
    /// The run now and after every change, at most once per `min_interval`.
    fn watch(&self, min_interval: Duration) -> impl Stream<Item = RunStatus> + Send + 'static;
    /// Every worker with a session, by slot.
    fn workers(&self) -> impl Future<Output = Result<Vec<WorkerStatus>, Refusal>> + Send;
    /// At most [`MAX_EVENTS`](crate::limits::MAX_EVENTS) events from sequence number `since` on.
    fn events(&self, since: u64) -> Vec<RunEvent>;
    /// All events from sequence number `since` on, as they happen.
    fn follow(&self, since: u64) -> impl Stream<Item = RunEvent> + Send + 'static;
}

/// Takes the wishes of operators.
pub trait OperatorService: Send + Sync + 'static {
    /// Whether a caller with this token may ask for anything.
    fn admit(&self, token: Option<&[u8]>) -> Result<(), Refusal>;
    /// Does it, or sees to it; one sentence about what happens now.
    fn operate(
        &self,
        command: OperatorCommand,
    ) -> impl Future<Output = Result<String, Refusal>> + Send;
}

/// The coordinator's side of a session, inwards, after the hello.
#[derive(Debug)]
pub struct WorkerMessages {
    incoming: Streaming<wire::WorkerMessage>,
}

impl WorkerMessages {
    /// The next message; `None` once the worker has closed its side. An error ends the session.
    pub async fn next(&mut self) -> Option<Result<WorkerMessage, Refusal>> {
        let message = self.incoming.next().await?;
        Some(match message {
            Ok(message) => message.try_into().map_err(Refusal::from),
            Err(status) => Err(Refusal::Unavailable(status.message().to_owned())),
        })
    }
}

/// Makes the gRPC service `lockstep.v1.Session`.
pub fn session_server<S: SessionService>(service: S) -> SessionServer<SessionAdapter<S>> {
    SessionServer::new(SessionAdapter(service)).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// Makes the gRPC service `lockstep.v1.Status`.
pub fn status_server<S: StatusService>(service: S) -> StatusServer<StatusAdapter<S>> {
    StatusServer::new(StatusAdapter(service)).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// Makes the gRPC service `lockstep.v1.Operator`.
pub fn operator_server<S: OperatorService>(service: S) -> OperatorServer<OperatorAdapter<S>> {
    OperatorServer::new(OperatorAdapter(service)).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// A [`SessionService`] as gRPC sees it.
#[derive(Debug)]
pub struct SessionAdapter<S>(S);

/// A [`StatusService`] as gRPC sees it.
#[derive(Debug)]
pub struct StatusAdapter<S>(S);

/// An [`OperatorService`] as gRPC sees it.
#[derive(Debug)]
pub struct OperatorAdapter<S>(S);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<S: SessionService> WireSession for SessionAdapter<S> {
    type JoinStream = Answers<wire::CoordinatorMessage>;

    async fn join(
        &self,
        request: Request<Streaming<wire::WorkerMessage>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let mut incoming = WorkerMessages { incoming: request.into_inner() };
        let Some(WorkerMessage::Hello(hello)) = incoming.next().await.transpose()? else {
            let refusal = Border("WorkerMessage").malformed("kind", "must be hello at first");
            return Err(Refusal::from(refusal).into());
        };
        let outgoing = self.0.join(hello, incoming).await?;
        let messages = ReceiverStream::new(outgoing)
            .map(|message| message.map(Into::into).map_err(Status::from));
        Ok(Response::new(Box::pin(messages)))
    }
}

#[tonic::async_trait]
impl<S: StatusService> WireStatus for StatusAdapter<S> {
    type WatchRunStream = Answers<wire::Run>;
    type FollowEventsStream = Answers<wire::RunEvent>;

    async fn get_run(
        &self,
        request: Request<wire::GetRunRequest>,
    ) -> Result<Response<wire::Run>, Status> {
        let wire::GetRunRequest {} = request.into_inner();
        Ok(Response::new(self.0.run().into()))
    }

    async fn watch_run(
        &self,
        request: Request<wire::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let wire::WatchRunRequest { min_interval_ms } = request.into_inner();
        let min_interval = match min_interval_ms {
            0 => DEFAULT_WATCH_INTERVAL,
            ms => Duration::from_millis(ms.into()),
        };
        let changes = self.0.watch(min_interval).map(|run| Ok(run.into()));
        Ok(Response::new(Box::pin(changes)))
    }

    async fn list_workers(
        &self,
        request: Request<wire::ListWorkersRequest>,
    ) -> Result<Response<wire::ListWorkersResponse>, Status> {
        let wire::ListWorkersRequest {} = request.into_inner();
        let workers = self.0.workers().await?.into_iter().map(Into::into).collect();
        Ok(Response::new(wire::ListWorkersResponse { workers }))
    }

    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        let wire::ListEventsRequest { since } = request.into_inner();
        let events = self.0.events(since).into_iter().map(Into::into).collect();
        Ok(Response::new(wire::ListEventsResponse { events }))
    }

    async fn follow_events(
        &self,
        request: Request<wire::FollowEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let wire::FollowEventsRequest { since } = request.into_inner();
        let events = self.0.follow(since).map(|event| Ok(event.into()));
        Ok(Response::new(Box::pin(events)))
    }
}

impl<S: OperatorService> OperatorAdapter<S> {
    async fn operate<T>(
        &self,
        request: Request<T>,
        command: impl FnOnce(T) -> Result<OperatorCommand, Malformed>,
    ) -> Result<Response<wire::OperatorAnswer>, Status> {
        let authorization = request.metadata().get(AUTHORIZATION).map(MetadataValue::as_bytes);
        self.0.admit(authorization.and_then(|value| value.strip_prefix(BEARER)))?;
        let command = command(request.into_inner()).map_err(Refusal::from)?;
        Ok(Response::new(wire::OperatorAnswer { summary: self.0.operate(command).await? }))
    }
}

#[tonic::async_trait]
impl<S: OperatorService> WireOperator for OperatorAdapter<S> {
    async fn stop_run(
        &self,
        request: Request<wire::StopRunRequest>,
    ) -> Result<Response<wire::OperatorAnswer>, Status> {
        self.operate(request, |wire::StopRunRequest {}| Ok(OperatorCommand::Stop)).await
    }

    async fn save_checkpoint(
        &self,
        request: Request<wire::SaveCheckpointRequest>,
    ) -> Result<Response<wire::OperatorAnswer>, Status> {
        self.operate(request, |wire::SaveCheckpointRequest {}| Ok(OperatorCommand::Checkpoint))
            .await
    }

    async fn pause_run(
        &self,
        request: Request<wire::PauseRunRequest>,
    ) -> Result<Response<wire::OperatorAnswer>, Status> {
        self.operate(request, |wire::PauseRunRequest {}| Ok(OperatorCommand::Pause)).await
    }

    async fn resume_run(
        &self,
        request: Request<wire::ResumeRunRequest>,
    ) -> Result<Response<wire::OperatorAnswer>, Status> {
        self.operate(request, |wire::ResumeRunRequest {}| Ok(OperatorCommand::Resume)).await
    }

    async fn drain_worker(
        &self,
        request: Request<wire::DrainWorkerRequest>,
    ) -> Result<Response<wire::OperatorAnswer>, Status> {
        self.operate(request, |wire::DrainWorkerRequest { worker_uid }| {
            let worker = Border("DrainWorkerRequest").name("worker_uid", worker_uid)?;
            Ok(OperatorCommand::Drain(WorkerUid(worker)))
        })
        .await
    }
}
