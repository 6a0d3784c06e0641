//! Typed clients: callers never see a wire type.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::border::{Malformed, clip};
use crate::connection::Destination;
use crate::coordinator_message::CoordinatorMessage;
use crate::limits::{MAX_MESSAGE_BYTES, SESSION_QUEUE};
use crate::operator::OperatorCommand;
use crate::run_event::RunEvent;
use crate::server::{AUTHORIZATION, BEARER};
use crate::status::{RunStatus, WorkerStatus};
use crate::tls::Distrust;
use crate::wire;
use crate::wire::operator_client::OperatorClient as WireOperator;
use crate::wire::session_client::SessionClient as WireSession;
use crate::wire::status_client::StatusClient as WireStatus;
use crate::worker_message::{Hello, WorkerMessage};

/// Why a call to the coordinator failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The address is not a URI.
    #[error("`{address}` is not an address; expected for example http://127.0.0.1:7400")]
    Address {
        /// As it was given.
        address: String,
        /// What the parser says.
        #[source]
        source: tonic::transport::Error,
    },
    /// An `https` address, and nothing to check who answers there.
    #[error(
        "{address} is reached by TLS; give the certificate of the authority that signed the coordinator's \
         with --tls-ca"
    )]
    NoAuthority {
        /// As it was given.
        address: String,
    },
    /// One end does not trust the other.
    #[error("no secure connection to the coordinator at {address}")]
    Distrust {
        /// Where it was looked for.
        address: String,
        /// Why, and what to do.
        #[source]
        source: Distrust,
    },
    /// An `http` address of a coordinator that speaks TLS.
    #[error("what answers at {address} speaks TLS; connect with https:// and --tls-ca")]
    WantsTls {
        /// Where it was looked for.
        address: String,
    },
    /// Whoever carries the packets could read the operator token.
    #[error(
        "the operator token would travel to {address} in plain text; use https:// (the coordinator's \
         --tls-cert), a loopback address, or --send-token-in-plain-text if the network is private"
    )]
    TokenInPlainText {
        /// Where it would go.
        address: String,
    },
    /// Nobody answers.
    #[error("cannot reach the coordinator at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The coordinator says no, and would say so again.
    #[error("the coordinator refused: {reason}")]
    Refused {
        /// Its sentence.
        reason: String,
    },
    /// The coordinator has no place for this worker at the moment.
    #[error("the coordinator has no place now: {reason}")]
    Full {
        /// Its sentence.
        reason: String,
    },
    /// The session broke.
    #[error("the session with the coordinator broke: {reason}")]
    Broken {
        /// What the transport says.
        reason: String,
    },
    /// An operator token that no header can carry.
    #[error("the operator token holds characters other than visible ASCII")]
    Token,
    /// The coordinator sent something that it must not.
    #[error("the coordinator sent a malformed message")]
    Malformed(#[from] Malformed),
}

/// What a caller does with a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again, with backoff.
    Retry,
    /// Stop; a human must look.
    GiveUp,
}

impl SessionError {
    /// Callers branch on this, never on the message.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { .. } | Self::Full { .. } | Self::Broken { .. } => Verdict::Retry,
            Self::Address { .. }
            | Self::NoAuthority { .. }
            | Self::Distrust { .. }
            | Self::WantsTls { .. }
            | Self::TokenInPlainText { .. }
            | Self::Refused { .. }
            | Self::Token
            | Self::Malformed(_) => Verdict::GiveUp,
        }
    }

    fn from_status(status: &Status) -> Self {
        let reason = status.message().to_owned();
        let no = [Code::FailedPrecondition, Code::InvalidArgument, Code::PermissionDenied];
        if no.contains(&status.code()) {
            return Self::Refused { reason };
        }
        if status.code() == Code::ResourceExhausted {
            return Self::Full { reason };
        }
        Self::Broken { reason: format!("{} ({:?})", reason, status.code()) }
    }
}

/// Opens sessions.
#[derive(Debug)]
pub struct SessionClient;

impl SessionClient {
    /// Opens a session and says hello.
    ///
    /// The first message to arrive is `Welcome`. The session ends when the sender is dropped and
    /// everything queued has left.
    pub async fn connect(
        destination: &Destination,
        hello: Hello,
    ) -> Result<(SessionSender, SessionMessages), SessionError> {
        let channel = destination.channel().await?;
        let (queue, outgoing) = mpsc::channel(SESSION_QUEUE);
        let sender = SessionSender { queue };
        sender.send(WorkerMessage::Hello(hello)).await?;
        let incoming = WireSession::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .join(ReceiverStream::new(outgoing))
            .await
            .map_err(|status| SessionError::from_status(&status))?
            .into_inner();
        Ok((sender, SessionMessages { incoming }))
    }
}

/// The worker's side of a session, outwards. Clones share one queue.
#[derive(Debug, Clone)]
pub struct SessionSender {
    queue: mpsc::Sender<wire::WorkerMessage>,
}

impl SessionSender {
    /// Queues a message; waits while the queue is full. An error means that the session is over:
    /// the reason comes from [`SessionMessages::next`].
    pub async fn send(&self, message: WorkerMessage) -> Result<(), SessionError> {
        self.queue
            .send(message.into())
            .await
            .map_err(|_| SessionError::Broken { reason: "the stream is closed".into() })
    }
}

/// The worker's side of a session, inwards.
#[derive(Debug)]
pub struct SessionMessages {
    incoming: Streaming<wire::CoordinatorMessage>,
}

impl SessionMessages {
    /// The next message; `None` once the coordinator has closed the session. Safe to drop half-way.
    pub async fn next(&mut self) -> Option<Result<CoordinatorMessage, SessionError>> {
        next(&mut self.incoming).await
    }
}

/// Asks about a run.
#[derive(Debug, Clone)]
pub struct StatusClient {
    client: WireStatus<Channel>,
}

impl StatusClient {
    /// Connects.
    pub async fn connect(destination: &Destination) -> Result<Self, SessionError> {
        let client = WireStatus::new(destination.channel().await?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client })
    }

    /// The run now.
    pub async fn get_run(&mut self) -> Result<RunStatus, SessionError> {
        let answer = self.client.get_run(wire::GetRunRequest {}).await;
        let run = answer.map_err(|status| SessionError::from_status(&status))?.into_inner();
        Ok(run.try_into()?)
    }

    /// The run now and after every change, at most once per `min_interval`.
    pub async fn watch_run(&mut self, min_interval: Duration) -> Result<RunChanges, SessionError> {
        let min_interval_ms = u32::try_from(min_interval.as_millis()).unwrap_or(u32::MAX);
        let answer = self.client.watch_run(wire::WatchRunRequest { min_interval_ms }).await;
        let incoming = answer.map_err(|status| SessionError::from_status(&status))?.into_inner();
        Ok(RunChanges { incoming })
    }

    /// Every worker with a session, by slot.
    pub async fn list_workers(&mut self) -> Result<Vec<WorkerStatus>, SessionError> {
        let answer = self.client.list_workers(wire::ListWorkersRequest {}).await;
        let list = answer.map_err(|status| SessionError::from_status(&status))?.into_inner();
        let wire::ListWorkersResponse { workers } = list;
        Ok(workers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
    }

    /// A page of events from sequence number `since` on; empty once there are no more.
    pub async fn list_events(&mut self, since: u64) -> Result<Vec<RunEvent>, SessionError> {
        let answer = self.client.list_events(wire::ListEventsRequest { since }).await;
        let list = answer.map_err(|status| SessionError::from_status(&status))?.into_inner();
        let wire::ListEventsResponse { events } = list;
        Ok(events.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
    }

    /// All events from sequence number `since` on, as they happen.
    pub async fn follow_events(&mut self, since: u64) -> Result<RunEvents, SessionError> {
        let answer = self.client.follow_events(wire::FollowEventsRequest { since }).await;
        let incoming = answer.map_err(|status| SessionError::from_status(&status))?.into_inner();
        Ok(RunEvents { incoming })
    }
}

/// Events, as they happen.
#[derive(Debug)]
pub struct RunEvents {
    incoming: Streaming<wire::RunEvent>,
}

impl RunEvents {
    /// The next event; `None` once the coordinator has ended.
    pub async fn next(&mut self) -> Option<Result<RunEvent, SessionError>> {
        next(&mut self.incoming).await
    }
}

/// Successive states of a run.
#[derive(Debug)]
pub struct RunChanges {
    incoming: Streaming<wire::Run>,
}

impl RunChanges {
    /// The next state; `None` once the coordinator has ended.
    pub async fn next(&mut self) -> Option<Result<RunStatus, SessionError>> {
        next(&mut self.incoming).await
    }
}

/// The next message of a stream, checked.
async fn next<W, T>(incoming: &mut Streaming<W>) -> Option<Result<T, SessionError>>
where
    T: TryFrom<W, Error = Malformed>,
{
    Some(match incoming.next().await? {
        Ok(message) => message.try_into().map_err(SessionError::from),
        Err(status) => Err(SessionError::from_status(&status)),
    })
}

/// An operator's token, and how far it may travel.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The coordinator's operator token.
    pub token: &'a [u8],
    /// Whether it may be sent to another machine without encryption.
    pub in_plain_text: PlainText,
}

/// Never shows the token.
impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Whether a secret may travel where others can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainText {
    /// Only encrypted, or inside this machine.
    Forbidden,
    /// Someone has said that the network is private.
    Allowed,
}

/// Asks for changes of a run.
#[derive(Debug, Clone)]
pub struct OperatorClient {
    client: WireOperator<Channel>,
    authorization: Option<AsciiMetadataValue>,
}

impl OperatorClient {
    /// Connects, with the coordinator's operator token if it has one.
    pub async fn connect(
        destination: &Destination,
        credentials: Option<Credentials<'_>>,
    ) -> Result<Self, SessionError> {
        let forbidden = |of: Credentials<'_>| of.in_plain_text == PlainText::Forbidden;
        if credentials.is_some_and(forbidden) && !destination.is_private() {
            let address = destination.uri().to_owned();
            return Err(SessionError::TokenInPlainText { address });
        }
        let authorization = credentials
            .map(|of| AsciiMetadataValue::try_from([BEARER, of.token].concat()))
            .transpose()
            .map_err(|_| SessionError::Token)?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        let client = WireOperator::new(destination.channel().await?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client, authorization })
    }

    /// Asks; the coordinator's sentence about what happens now.
    pub async fn ask(&mut self, command: OperatorCommand) -> Result<String, SessionError> {
        let authorization = self.authorization.clone();
        let client = &mut self.client;
        let answer = match command {
            OperatorCommand::Stop => {
                client.stop_run(with(authorization, wire::StopRunRequest {})).await
            }
            OperatorCommand::Checkpoint => {
                client.save_checkpoint(with(authorization, wire::SaveCheckpointRequest {})).await
            }
            OperatorCommand::Pause => {
                client.pause_run(with(authorization, wire::PauseRunRequest {})).await
            }
            OperatorCommand::Resume => {
                client.resume_run(with(authorization, wire::ResumeRunRequest {})).await
            }
            OperatorCommand::Drain(worker) => {
                let request = wire::DrainWorkerRequest { worker_uid: worker.0 };
                client.drain_worker(with(authorization, request)).await
            }
        };
        let answer = answer.map_err(|status| SessionError::from_status(&status))?.into_inner();
        let wire::OperatorAnswer { summary } = answer;
        Ok(clip(summary))
    }
}

fn with<T>(authorization: Option<AsciiMetadataValue>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(authorization) = authorization {
        request.metadata_mut().insert(AUTHORIZATION, authorization);
    }
    request
}
