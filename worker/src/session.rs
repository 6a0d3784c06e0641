//! The session with the coordinator: the async side of a worker.
//!
//! It connects with growing pauses, passes orders to the trainer and its words to the coordinator, sends
//! heartbeats, and turns signals into "leave at the next step edge". While the coordinator is away the
//! trainer goes on with the steps it has plans for. A coordinator that is back, or a new one in its place, hears from the
//! hello which world that is; if it goes on with it, all that this worker reported there is said again, since nobody
//! knows what the broken stream swallowed. Hearing something twice is harmless to it.

use std::collections::VecDeque;
use std::time::Duration;

use lockstep_collective::AbortHandle;
use lockstep_proto::ids::Generation;
use lockstep_proto::{
    CoordinatorMessage, Destination, Dismiss, Exit, Goodbye, Hello, SessionClient, SessionError,
    SessionMessages, SessionSender, Verdict, Welcome, WorkerMessage,
};
use lockstep_service::telemetry::chain;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::border::{Order, SessionEnd, Shared, WORDS};
use crate::signals::Signals;

/// First pause between two attempts to connect; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Time that the last words have to reach the coordinator.
const PARTING: Duration = Duration::from_secs(5);

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) coordinator: Destination,
    pub(crate) hello: Hello,
    /// Give up after this long without a coordinator.
    pub(crate) patience: Duration,
}

/// Why the session ended, for the process to exit with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionFailure {
    #[error("the coordinator refused this worker")]
    Refused(#[source] SessionError),
    #[error("no coordinator at {address} for {waited:?}; start it, or correct --coordinator")]
    Unreachable {
        address: String,
        waited: Duration,
        #[source]
        source: SessionError,
    },
}

/// Runs until the coordinator dismisses this worker, a signal ends it, or the trainer has stopped.
pub(crate) async fn run(mut target: Target, end: SessionEnd) -> Result<Exit, SessionFailure> {
    let mut session = Session { end, abort: None, reported: VecDeque::new() };
    let mut leave = Signals::new();
    loop {
        let connected = tokio::select! {
            connected = connect(&mut target, &session.end.shared) => connected?,
            () = session.end.orders.closed() => return Ok(session.trainer_stopped()),
            () = leave.next() => {
                if session.leave().await {
                    return Ok(Exit::Done);
                }
                continue;
            }
        };
        match session.serve(connected, &mut target, &mut leave).await {
            Served::Over(exit) => return Ok(exit),
            Served::Refused(error) => return Err(SessionFailure::Refused(error)),
            Served::Broken(error) => {
                tracing::warn!(%error, "lost the coordinator; going on with the steps already planned");
            }
        }
    }
}

/// Connects, however long it takes within the target's patience.
async fn connect(
    target: &mut Target,
    shared: &Shared,
) -> Result<(SessionSender, SessionMessages), SessionFailure> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        target.hello.member = shared.membership();
        let error = match SessionClient::connect(&target.coordinator, target.hello.clone()).await {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        let waited = started.elapsed();
        match error.verdict() {
            Verdict::GiveUp => return Err(SessionFailure::Refused(error)),
            Verdict::Retry if waited + pause > target.patience => {
                let address = target.coordinator.uri().to_owned();
                return Err(SessionFailure::Unreachable { address, waited, source: error });
            }
            Verdict::Retry => {
                let error = chain(&error); // a name that does not resolve, or nobody there
                tracing::warn!(error, again_in = ?pause, waited = ?waited, "no coordinator yet");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How one connection ended.
enum Served {
    Over(Exit),
    Refused(SessionError),
    Broken(SessionError),
}

struct Session {
    end: SessionEnd,
    /// Ends the collectives of the world that the trainer is in.
    abort: Option<(Generation, AbortHandle)>,
    /// What was said of the newest world, for a coordinator that has not heard it; the oldest goes first.
    reported: VecDeque<WorkerMessage>,
}

impl Session {
    async fn serve(
        &mut self,
        (sender, mut messages): (SessionSender, SessionMessages),
        target: &mut Target,
        leave: &mut Signals,
    ) -> Served {
        let mut beat = interval(LONGEST_PAUSE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut welcomed = false;
        loop {
            let sent = tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(CoordinatorMessage::Welcome(welcome))) => {
                        target.hello.run_id = Some(welcome.run_id.clone());
                        beat = interval(welcome.heartbeat);
                        welcomed = true;
                        self.welcomed(welcome, &sender).await
                    }
                    Some(Ok(CoordinatorMessage::Dump(dump))) => {
                        self.abort_world();
                        self.order(Order::Dump(dump)).await;
                        return Served::Over(Exit::RestartMe);
                    }
                    Some(Ok(CoordinatorMessage::Dismiss(dismiss))) => {
                        return Served::Over(self.dismissed(dismiss).await);
                    }
                    Some(Ok(message)) => {
                        self.pass_on(message).await;
                        Ok(())
                    }
                    Some(Err(error)) => return ended(error),
                    None if self.has_left() => return Served::Over(Exit::Done),
                    None => return Served::Broken(SessionError::Broken {
                        reason: "the coordinator closed the session".into(),
                    }),
                },
                word = self.end.words.recv(), if welcomed => {
                    let Some(word) = word else {
                        farewell(sender, messages).await;
                        return Served::Over(self.trainer_stopped());
                    };
                    self.keep(&word);
                    sender.send(word).await
                }
                _ = beat.tick(), if welcomed => {
                    sender.send(WorkerMessage::Heartbeat(self.end.shared.heartbeat())).await
                }
                () = leave.next() => {
                    if self.leave().await {
                        let reason = "asked to leave".to_owned();
                        let goodbye = WorkerMessage::Goodbye(Goodbye { reason });
                        if sender.send(goodbye).await.is_ok() {
                            farewell(sender, messages).await;
                        }
                        return Served::Over(Exit::Done);
                    }
                    Ok(())
                }
            };
            if sent.is_err() {
                // The queue is closed; the reason stands in the incoming half.
                match messages.next().await {
                    Some(Err(error)) => return ended(error),
                    Some(Ok(CoordinatorMessage::Dismiss(dismiss))) => {
                        return Served::Over(self.dismissed(dismiss).await);
                    }
                    _ => {
                        return Served::Broken(SessionError::Broken {
                            reason: "the stream is closed".into(),
                        });
                    }
                }
            }
        }
    }

    /// Goes on with the world that the coordinator knows too, or begins anew.
    async fn welcomed(
        &mut self,
        welcome: Box<Welcome>,
        sender: &SessionSender,
    ) -> Result<(), SessionError> {
        let Some(generation) = welcome.member_of else {
            self.abort_world();
            self.order(Order::Welcomed(welcome)).await;
            return Ok(());
        };
        tracing::info!(generation = generation.0, "the coordinator is back; the world goes on");
        for word in &self.reported {
            sender.send(word.clone()).await?;
        }
        Ok(())
    }

    /// Keeps what must reach the coordinator even if this stream breaks.
    fn keep(&mut self, word: &WorkerMessage) {
        let must_reach = matches!(
            word,
            WorkerMessage::Reports(_)
                | WorkerMessage::CheckpointWritten(_)
                | WorkerMessage::CommunicatorIds(_)
        );
        if !must_reach {
            return;
        }
        if self.reported.len() == WORDS {
            self.reported.pop_front();
        }
        self.reported.push_back(word.clone());
    }

    /// Passes a message on to the trainer.
    async fn pass_on(&mut self, message: CoordinatorMessage) {
        match message {
            CoordinatorMessage::World(world) => {
                let abort = AbortHandle::new();
                self.abort = Some((world.generation, abort.clone()));
                self.reported.clear();
                self.order(Order::Train(Box::new(world), abort)).await;
            }
            CoordinatorMessage::CommunicatorIds(ids) => {
                self.order(Order::Communicators(Box::new(ids))).await;
            }
            CoordinatorMessage::Plan(window) => self.order(Order::Plan(window)).await,
            CoordinatorMessage::Abort(abort) => {
                tracing::warn!(
                    generation = abort.generation.0,
                    reason = abort.reason,
                    "world aborted"
                );
                if self
                    .abort
                    .as_ref()
                    .is_some_and(|(generation, _)| *generation == abort.generation)
                {
                    self.abort_world();
                }
                self.order(Order::Abort(abort.generation, abort.reason)).await;
            }
            CoordinatorMessage::Stop(stop) => {
                tracing::info!(reason = stop.reason, "stopping at the next step edge");
                self.end.shared.request_stop(stop.generation);
            }
            CoordinatorMessage::Save(generation) => self.order(Order::Save(generation)).await,
            CoordinatorMessage::Welcome(_)
            | CoordinatorMessage::Dump(_)
            | CoordinatorMessage::Dismiss(_) => {
                unreachable!("the caller has dealt with these")
            }
        }
    }

    fn abort_world(&mut self) {
        if let Some((_, abort)) = self.abort.take() {
            abort.abort();
        }
    }

    /// A closed channel means that the trainer has stopped, which `words` says too.
    async fn order(&self, order: Order) {
        drop(self.end.orders.send(order).await);
    }

    async fn dismissed(&mut self, dismiss: Dismiss) -> Exit {
        tracing::info!(reason = dismiss.reason, "dismissed");
        self.abort_world();
        self.order(Order::Quit).await;
        dismiss.exit
    }

    /// The coordinator closes the session of a worker that said goodbye.
    fn has_left(&self) -> bool {
        let shared = &self.end.shared;
        shared.wants_leave() && shared.membership().is_none()
    }

    fn trainer_stopped(&self) -> Exit {
        if self.end.shared.wants_leave() { Exit::Done } else { Exit::RestartMe }
    }

    /// A signal came. True when there is no step edge to wait for.
    async fn leave(&mut self) -> bool {
        self.end.shared.request_leave();
        if self.end.shared.comes_to_an_edge() {
            tracing::info!("leaving at the next step edge, after a checkpoint");
            return false;
        }
        self.order(Order::Quit).await;
        true
    }
}

/// Lets the last words reach the coordinator, which then closes the session.
async fn farewell(sender: SessionSender, mut messages: SessionMessages) {
    drop(sender);
    let closed = async { while messages.next().await.is_some_and(|message| message.is_ok()) {} };
    if tokio::time::timeout(PARTING, closed).await.is_err() {
        tracing::warn!("the coordinator did not take leave");
    }
}

fn ended(error: SessionError) -> Served {
    match error.verdict() {
        Verdict::GiveUp => Served::Refused(error),
        Verdict::Retry => Served::Broken(error),
    }
}
