//! Which shards are fetched, in the background.
//!
//! ```text
//!  expect(shards)   the order's next ones ──▶ wanted, at most as many bytes as the cache holds
//!  wait(shard)      a reader needs it now ──▶ awaited, goes first
//!                                               │
//!                            a few at a time ◀──┘ fetch ─▶ checksum ─▶ cache ─▶ readers are woken
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use lockstep_data::ShardEntry;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::cache::{Begun, Cache, Partial};
use crate::fault::Fault;
use crate::fetch::Remote;

/// Shards that are fetched at the same time, beside those that readers wait for.
const AT_ONCE: usize = 4;
/// How often bytes with another checksum are fetched again.
const WRONG_BYTES: u32 = 3;
/// Pause before looking again for room, or for what another process fetches.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long room is waited for.
const NO_ROOM: Duration = Duration::from_mins(2);
/// How long a failure answers for its shard before it is tried again.
const FAILURE_HOLDS: Duration = Duration::from_secs(5);
/// How often the shards in use are noted as such in the cache, for other processes.
const TOUCH_EVERY: Duration = Duration::from_secs(2);

/// The fetching of shards into a cache.
#[derive(Debug)]
pub(crate) struct Downloads {
    shared: Arc<Shared>,
    runtime: Handle,
}

#[derive(Debug)]
struct Shared {
    remote: Arc<Remote>,
    cache: Cache,
    state: Mutex<State>,
    changed: Condvar,
}

/// Shards by their checksum.
type Key = String;

#[derive(Debug, Default)]
struct State {
    /// The most urgent first.
    wanted: Vec<ShardEntry>,
    awaited: BTreeMap<Key, ShardEntry>,
    running: BTreeSet<Key>,
    failed: BTreeMap<Key, (Fault, Instant)>,
    /// The fetching tasks; one that panics takes its readers along.
    tasks: JoinSet<()>,
    touched: Option<Instant>,
    has_warned: bool,
}

impl Downloads {
    /// Fetches on the runtime of `runtime`.
    pub(crate) fn new(remote: Arc<Remote>, cache: Cache, runtime: Handle) -> Self {
        let shared =
            Shared { remote, cache, state: Mutex::new(State::default()), changed: Condvar::new() };
        Self { shared: Arc::new(shared), runtime }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    /// Replaces what is fetched ahead: these, the most urgent first.
    pub(crate) fn expect(&self, shards: &[&ShardEntry]) {
        let mut state = self.shared.lock();
        let mut left = self.shared.cache.bound();
        let fits = |entry: &&&ShardEntry| {
            let rest = left.checked_sub(entry.bytes);
            left = rest.unwrap_or_default();
            rest.is_some()
        };
        let wanted: Vec<_> = shards.iter().take_while(fits).map(|entry| (*entry).clone()).collect();
        let has_changed = wanted != state.wanted;
        state.wanted = wanted;
        if state.wanted.len() < shards.len() && !state.has_warned {
            state.has_warned = true;
            warn!(
                shards = shards.len(),
                fitting = state.wanted.len(),
                cache_bytes = self.shared.cache.bound(),
                "the shards that are read now and next do not all fit into the cache; raise \
                 --data-cache-gib, pack smaller shards, or read samples with --data-reads ranged"
            );
        }
        let (now, clock) = now();
        if has_changed || state.touched.is_none_or(|then| now - then > TOUCH_EVERY) {
            state.touched = Some(now);
            state.wanted.iter().for_each(|entry| self.shared.cache.touch(entry, clock));
        }
        self.start(&mut state);
    }

    /// Waits until a shard is in the cache, but only so long; says whether it is.
    pub(crate) fn wait(&self, entry: &ShardEntry, at_most: Duration) -> Result<bool, Fault> {
        let key = &entry.checksum;
        if self.shared.cache.find(entry).is_some() {
            return Ok(true);
        }
        let mut state = self.shared.lock();
        state.awaited.insert(key.clone(), entry.clone());
        self.start(&mut state);
        let waits = |state: &mut State| state.running.contains(key);
        let waited = self.shared.changed.wait_timeout_while(state, at_most, waits);
        let (state, _) = waited.expect("no holder of this lock can panic");
        match state.failed.get(key) {
            Some((fault, _)) => Err(fault.clone()),
            None => Ok(self.shared.cache.find(entry).is_some()),
        }
    }

    /// Starts as many fetches as may run.
    fn start(&self, state: &mut State) {
        start(&self.shared, &self.runtime, state);
    }
}

/// Starts as many fetches as may run: all that are awaited, and a few that are wanted.
fn start(shared: &Arc<Shared>, runtime: &Handle, state: &mut State) {
    while let Some(done) = state.tasks.try_join_next() {
        // A bug: its shard would never come, and whoever waits for it must not hang.
        assert!(!done.is_err_and(|error| error.is_panic()), "a task that fetched a shard panicked");
    }
    let (now, _) = now();
    state.failed.retain(|_, (_, then)| now - *then < FAILURE_HOLDS);
    let State { wanted, awaited, running, failed, tasks, .. } = state;
    awaited.retain(|key, entry| !failed.contains_key(key) && shared.cache.find(entry).is_none());
    let ahead = wanted.iter().map(|entry| (entry, AT_ONCE));
    for (entry, limit) in awaited.values().map(|entry| (entry, usize::MAX)).chain(ahead) {
        let key = &entry.checksum;
        let is_dealt_with = running.contains(key) || failed.contains_key(key);
        if is_dealt_with || running.len() >= limit || shared.cache.find(entry).is_some() {
            continue;
        }
        running.insert(key.clone());
        let (shared, again, entry) = (Arc::clone(shared), runtime.clone(), entry.clone());
        tasks.spawn_on(async move { shared.run(entry, again).await }, runtime);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    /// Fetches one shard and tells what became of it.
    async fn run(self: Arc<Self>, entry: ShardEntry, runtime: Handle) {
        let done = self.fetch(&entry).await;
        let mut state = self.lock();
        state.running.remove(&entry.checksum);
        if let Err(fault) = done {
            warn!(shard = entry.file, reason = fault.problem, "a shard could not be fetched");
            state.failed.insert(entry.checksum, (fault, now().0));
        }
        start(&self, &runtime, &mut state);
        drop(state);
        self.changed.notify_all();
    }

    async fn fetch(&self, entry: &ShardEntry) -> Result<(), Fault> {
        let (started, _) = now();
        let mut partial = loop {
            match self.cache.begin(entry)? {
                Begun::Whole => return Ok(()),
                Begun::Mine(partial) => break partial,
                Begun::Later if started.elapsed() > NO_ROOM => {
                    let bound = self.cache.bound();
                    return Err(Fault::passing(format!(
                        "found no room in the cache of {bound} bytes for {NO_ROOM:?}: shards that are \
                         being fetched fill it; raise --data-cache-gib"
                    )));
                }
                Begun::Later => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        for _ in 0..WRONG_BYTES {
            let found = self.fill(entry, &mut partial).await?;
            if found == entry.checksum {
                partial.finish()?;
                let took = started.elapsed();
                debug!(shard = entry.file, bytes = entry.bytes, ?took, "shard fetched");
                return Ok(());
            }
            warn!(shard = entry.file, found, "fetched bytes have another checksum");
        }
        Err(Fault::content(format!(
            "came {WRONG_BYTES} times with another checksum than the manifest's, {}: what lies in the store \
             has changed",
            entry.checksum
        )))
    }

    /// Fetches the bytes of a shard; gives their checksum.
    async fn fill(&self, entry: &ShardEntry, partial: &mut Partial) -> Result<String, Fault> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        let mut take = |chunk: &[u8]| {
            hasher.update(chunk);
            let written = partial.file.write_all_at(chunk, at);
            at += chunk.len() as u64;
            written.map_err(Fault::cache("write", &partial.path))
        };
        self.remote.stream(&entry.file, entry.bytes, &mut take).await?;
        Ok(hasher.finalize().to_hex().to_string())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shell: what is fetched when depends on it, never what is read"
)]
fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}
