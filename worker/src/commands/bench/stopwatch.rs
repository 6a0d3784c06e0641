//! Where a step's time goes: adds up the time that a thread spends in spans of given names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Time per name of a span.
pub(super) type Times = BTreeMap<&'static str, Duration>;

/// A layer that measures spans named in `names`, which must not be inside of one another.
#[derive(Debug, Clone)]
pub(super) struct Stopwatch {
    names: &'static [&'static str],
    times: Arc<Mutex<Times>>,
}

impl Stopwatch {
    pub(super) fn new(names: &'static [&'static str]) -> Self {
        Self { names, times: Arc::default() }
    }

    /// What was measured since the last call.
    pub(super) fn take(&self) -> Times {
        std::mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// When a span was made.
struct Started(Instant);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "measuring is what this layer is for")]
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if self.names.contains(&attributes.metadata().name())
            && let Some(span) = context.span(id)
        {
            span.extensions_mut().insert(Started(Instant::now()));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(Started(at)) = span.extensions().get::<Started>() {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            *times.entry(span.name()).or_default() += at.elapsed();
        }
    }
}
