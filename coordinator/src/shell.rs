//! The loop of the coordinator: streams, timer and signals in; decisions of the core out.
//!
//! Everything that the core wants done is done here, in order and by one task, so that a
//! generation is on disk before any worker hears of it. Nothing here decides.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use lockstep_core::{Core, Effect, Event, EventLog, SessionId};
use lockstep_proto::ids::Generation;
use lockstep_proto::server::{Refusal, WorkerMessages};
use lockstep_proto::{CoordinatorMessage, Exit, OperatorCommand, Phase, RunStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::grpc::{Joining, Request, ToWorker};
use crate::history::History;
use crate::journal::Journal;
use crate::live_line::LiveLine;

/// How often leases are looked at and the status is renewed.
const TICK: Duration = Duration::from_millis(100);
/// How long workers may take to hear that the run is over.
const FAREWELL: Duration = Duration::from_secs(5);
/// Events from workers that may wait for the loop; then their streams have to.
const EVENT_QUEUE: usize = 1024;

/// Where the loop leaves what people may look at.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) status: watch::Sender<RunStatus>,
    pub(crate) log: watch::Sender<EventLog>,
    pub(crate) journal: Journal,
    pub(crate) history: Option<History>,
}

/// What the loop works with.
#[derive(Debug)]
pub(crate) struct Shell {
    core: Core,
    started: Instant,
    sessions: HashMap<SessionId, ToWorker>,
    last_session: u64,
    /// One task per session; one that ends means that its stream did, which it has told by then.
    readers: JoinSet<()>,
    events: mpsc::Sender<Event>,
    outlets: Outlets,
    live_line: LiveLine,
    logged: Option<Shown>,
    /// Once the run is over: how, and until when workers are waited for.
    finished: Option<(Exit, Duration)>,
}

/// What was last logged about the run; a line is logged when it changes.
type Shown = (Phase, Generation, u32);

impl Shell {
    pub(crate) fn new(core: Core, outlets: Outlets) -> (Self, mpsc::Receiver<Event>) {
        #[expect(clippy::disallowed_methods, reason = "the coordinator's one clock")]
        let started = Instant::now();
        let (events, inbox) = mpsc::channel(EVENT_QUEUE);
        let shell = Self {
            core,
            started,
            sessions: HashMap::new(),
            last_session: 0,
            readers: JoinSet::new(),
            events,
            outlets,
            live_line: LiveLine::new(),
            logged: None,
            finished: None,
        };
        (shell, inbox)
    }

    /// Runs until the run is over. An error means that the coordinator can't keep its promises.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        mut requests: mpsc::Receiver<Request>,
        mut stop: impl Stream<Item = ()> + Unpin,
    ) -> anyhow::Result<Exit> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.step(Event::Started).await?;
        loop {
            tokio::select! {
                Some(event) = inbox.recv() => self.step(event).await?,
                Some(request) = requests.recv() => self.request(request).await?,
                Some(()) = stop.next() => self.step(Event::StopRequested).await?,
                Some(_) = self.readers.join_next() => {}
                _ = ticks.tick() => {
                    self.step(Event::Tick).await?;
                    self.publish();
                    self.outlets.journal.flush().await;
                }
            }
            if let Some((exit, until)) = self.finished
                && (self.sessions.is_empty() || self.now() >= until)
            {
                self.live_line.finish();
                self.give_up_on_workers().await?;
                self.outlets.journal.flush().await;
                return Ok(exit);
            }
        }
    }

    /// Those that have not gone by themselves.
    async fn give_up_on_workers(&mut self) -> anyhow::Result<()> {
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            let why = format!("it did not go within {FAREWELL:?}");
            self.step(Event::Lost { session, why }).await?;
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn request(&mut self, request: Request) -> anyhow::Result<()> {
        match request {
            Request::Join(joining) => self.join(*joining).await,
            Request::Workers(reply) => {
                // Whoever asked may have gone.
                drop(reply.send(self.core.workers(self.now())));
                Ok(())
            }
            Request::Operate(command, reply) => {
                let answer = self.operate(command).await?;
                // What an operator was told to have happened must outlast a crash.
                self.outlets.journal.flush().await;
                drop(reply.send(answer));
                Ok(())
            }
        }
    }

    async fn join(&mut self, joining: Joining) -> anyhow::Result<()> {
        let Joining { hello, incoming, outgoing } = joining;
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.sessions.insert(session, outgoing);
        self.readers.spawn(read(session, incoming, self.events.clone()));
        self.step(Event::Connected { session, hello: Box::new(hello) }).await
    }

    async fn operate(
        &mut self,
        command: OperatorCommand,
    ) -> anyhow::Result<Result<String, Refusal>> {
        tracing::info!(%command, "operator asked");
        let (effects, answer) = self.core.operate(self.now(), command);
        self.perform(effects).await?;
        Ok(answer)
    }

    async fn step(&mut self, event: Event) -> anyhow::Result<()> {
        let effects = self.decide(event);
        self.perform(effects).await
    }

    fn decide(&mut self, event: Event) -> Vec<Effect> {
        if let Event::Lost { session, .. } = &event {
            self.sessions.remove(session);
        }
        self.core.step(self.now(), event)
    }

    /// Does what the core wants, in order. That may bring further events, and they further effects.
    async fn perform(&mut self, effects: Vec<Effect>) -> anyhow::Result<()> {
        let changed = !effects.is_empty();
        let mut due = VecDeque::from(effects);
        while let Some(effect) = due.pop_front() {
            if let Some(event) = self.carry_out(effect).await? {
                due.extend(self.decide(event));
            }
        }
        if changed {
            self.publish();
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) -> anyhow::Result<Option<Event>> {
        match effect {
            Effect::Journal(record) => self.outlets.journal.record(record).await?,
            Effect::Send { session, message } => return Ok(self.send(session, message)),
            Effect::Close { session, refusal } => {
                let Some(queue) = self.sessions.remove(&session) else { return Ok(None) };
                let Some(refusal) = refusal else { return Ok(None) };
                tracing::warn!(reason = %refusal, "worker turned away");
                // Where its queue is full it does not read, and would not read this either.
                drop(queue.try_send(Err(refusal)));
            }
            Effect::Applied(step) => {
                let now = self.now();
                if let Some(history) = &mut self.outlets.history {
                    history.append(now, &step);
                }
            }
            Effect::Noted(event) => {
                self.outlets.journal.note(event.clone());
                self.outlets.log.send_modify(|log| log.push(event));
            }
            Effect::Finished(exit) => self.finished = Some((exit, self.now() + FAREWELL)),
        }
        Ok(None)
    }

    /// Queues a message. A worker that does not read its messages counts as lost.
    fn send(&mut self, session: SessionId, message: CoordinatorMessage) -> Option<Event> {
        let queue = self.sessions.get(&session)?;
        let error = queue.try_send(Ok(message)).err()?;
        let why = match error {
            mpsc::error::TrySendError::Full(_) => "it does not read its messages",
            mpsc::error::TrySendError::Closed(_) => "its stream is closed",
        };
        Some(Event::Lost { session, why: why.to_owned() })
    }

    /// Renews the status, the live line and the log.
    fn publish(&mut self) {
        let run = self.core.status();
        let shown = (run.phase, run.generation, run.connected_workers);
        if self.logged.replace(shown) != Some(shown) {
            tracing::info!(
                phase = run.phase.name(),
                generation = run.generation.0,
                workers = run.connected_workers,
                summary = run.summary,
                "run changed"
            );
        }
        self.live_line.show(self.now(), &run);
        self.outlets.status.send_if_modified(|before| {
            let changed = *before != run;
            *before = run;
            changed
        });
    }
}

/// Passes on what one worker says, until its stream ends.
async fn read(session: SessionId, mut incoming: WorkerMessages, events: mpsc::Sender<Event>) {
    let why = loop {
        match incoming.next().await {
            Some(Ok(message)) => {
                if events
                    .send(Event::Message { session, message: Box::new(message) })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Some(Err(refusal)) => break refusal.to_string(),
            None => break "it closed its stream".to_owned(),
        }
    };
    // Where the loop has ended, nobody needs to know.
    drop(events.send(Event::Lost { session, why }).await);
}
