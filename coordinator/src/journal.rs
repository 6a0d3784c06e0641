//! The store as the loop uses it: records before anything else, events with the next record or soon after.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use lockstep_core::Record;
use lockstep_proto::RunEvent;
use lockstep_service::telemetry::chain;

use crate::store::Store;

/// Writes for the loop, which waits meanwhile: no step of a run waits for it.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Without one nothing survives a restart.
    store: Option<Arc<Mutex<Store>>>,
    waiting: Vec<RunEvent>,
    /// Whether events could not be written the last time, so that a full disk is told once.
    failing: bool,
}

impl Journal {
    pub(crate) fn new(store: Option<Store>) -> Self {
        let store = store.map(|store| Arc::new(Mutex::new(store)));
        Self { store, waiting: Vec::new(), failing: false }
    }

    /// Keeps an event for the next [`record`](Self::record) or [`flush`](Self::flush).
    pub(crate) fn note(&mut self, event: RunEvent) {
        if self.store.is_some() {
            self.waiting.push(event);
        }
    }

    /// Stores a record and the events before it; they are on disk when this returns.
    pub(crate) async fn record(&mut self, record: Record) -> anyhow::Result<()> {
        self.write(vec![record]).await
    }

    /// Stores the events that wait. A run goes on where that fails: they are for people.
    pub(crate) async fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self.write(Vec::new()).await;
        if let Err(error) = &written
            && !self.failing
        {
            let error = chain(error.as_ref());
            tracing::warn!(error, "cannot store events; the list will have a gap");
        }
        self.failing = written.is_err();
    }

    async fn write(&mut self, records: Vec<Record>) -> anyhow::Result<()> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        let events = std::mem::take(&mut self.waiting);
        let write = move || {
            // A panic between two writes leaves a store that checks itself when it is opened anew.
            store.lock().unwrap_or_else(PoisonError::into_inner).append(records, &events)
        };
        tokio::task::spawn_blocking(write).await.context("write to the store")?
    }
}
