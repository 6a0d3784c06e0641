//! The bytes of one object, in spite of a network.
//!
//! A failed request is made again after a pause, and a body that broke off goes on where it ended. Pauses
//! double and are drawn from a key, (URL, process, try): workers that failed together come back apart, and
//! a test sees the same pauses again.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use lockstep_data::keyed::Key;
use object_store::{GetOptions, GetRange};
use tokio::time::timeout;
use tracing::warn;

use crate::fault::Fault;
use crate::place::{Place, Provider};

/// Largest file that is read into memory whole: a manifest, or offsets.
const MAX_SMALL: u64 = 1 << 30;
/// Progress that earns another try: long bodies may break more often than short ones.
const BYTES_PER_TRY: u64 = 8 << 20;

/// How much is borne.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Requests for one object that may fail, beside one more for every 8 MiB that came.
    pub(crate) tries: u64,
    /// Pause after the first failure; it doubles from there.
    pub(crate) pause: Duration,
    /// Longest pause.
    pub(crate) longest_pause: Duration,
    /// Silence that counts as a failure.
    pub(crate) silence: Duration,
}

impl Default for Patience {
    /// Half a minute of a store that is away.
    fn default() -> Self {
        Self {
            tries: 10,
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
            silence: Duration::from_secs(30),
        }
    }
}

impl Patience {
    /// The pause after so many failures, half of it drawn.
    fn pause(&self, key: Key, failures: u64) -> Duration {
        let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(20);
        let pause = self.pause.saturating_mul(1 << doublings).min(self.longest_pause);
        pause.mul_f64(0.5 + 0.5 * key.unit(failures))
    }
}

/// Files of a data set in a store.
pub(crate) struct Remote {
    pub(crate) place: Place,
    pub(crate) patience: Patience,
}

/// The client may hold credentials, so only the URL is shown.
impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.place.url).finish_non_exhaustive()
    }
}

/// Which bytes of an object, and what is known of it.
#[derive(Debug, Clone)]
struct Wanted {
    range: Range<u64>,
    /// Length of the whole object, if the manifest says it.
    object: Option<u64>,
}

impl Remote {
    /// The URL of a file.
    pub(crate) fn url(&self, name: &str) -> PathBuf {
        format!("{}/{name}", self.place.url).into()
    }

    /// A small object, whole.
    pub(crate) async fn read(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let wanted = Wanted { range: 0..u64::MAX, object: None };
        self.fetch(name, wanted, |chunk| {
            bytes.extend_from_slice(chunk);
            if bytes.len() as u64 > MAX_SMALL {
                return Err(Fault::refused(format!("has more than {MAX_SMALL} bytes")));
            }
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    /// Hands the bytes of an object of this length to `take`, in order, each once.
    pub(crate) async fn stream(
        &self,
        name: &str,
        bytes: u64,
        take: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.fetch(name, Wanted { range: 0..bytes, object: Some(bytes) }, take).await
    }

    /// Fills `buffer` with the bytes from `offset` on of an object of length `object`.
    pub(crate) async fn read_exact_at(
        &self,
        name: &str,
        buffer: &mut [u8],
        (offset, object): (u64, u64),
    ) -> Result<(), Fault> {
        let range = offset..offset + buffer.len() as u64;
        let mut filled = 0;
        self.fetch(name, Wanted { range, object: Some(object) }, |chunk| {
            let end = filled + chunk.len();
            let part = buffer.get_mut(filled..end);
            part.ok_or_else(too_much)?.copy_from_slice(chunk);
            filled = end;
            Ok(())
        })
        .await
    }

    async fn fetch(
        &self,
        name: &str,
        mut left: Wanted,
        mut take: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let start = left.range.start;
        let url = self.url(name);
        let process = u64::from(std::process::id());
        let key = Key::new(seed(&url.to_string_lossy())).bits(process);
        let mut failures = 0;
        while !left.range.is_empty() {
            let fault = match self.attempt(name, &mut left, &mut take).await {
                Ok(()) => continue,
                Err(fault) => fault,
            };
            failures += 1;
            let allowed = self.patience.tries + (left.range.start - start) / BYTES_PER_TRY;
            if !fault.may_pass() {
                return Err(fault);
            }
            if failures >= allowed {
                return Err(fault.after(failures, self.place.provider));
            }
            let pause = self.patience.pause(Key::new(key), failures);
            warn!(
                url = %url.display(),
                failures,
                from = left.range.start,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                reason = fault.problem,
                "fetching again after a failure"
            );
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// One request and its body; `left` says what is still wanted afterwards.
    async fn attempt(
        &self,
        name: &str,
        left: &mut Wanted,
        take: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let path = self.place.prefix.clone().join(name);
        let Range { start, end } = left.range;
        // Servers without ranges can answer a request for all.
        let is_all = start == 0 && left.object.is_none_or(|object| object == end);
        let range = (!is_all).then_some(GetRange::Bounded(start..end));
        let options = GetOptions { range, ..GetOptions::default() };
        let answer = timeout(self.patience.silence, self.place.store.get_opts(&path, options));
        let answer =
            answer.await.map_err(|_| self.silent())?.map_err(|error| self.fault(&error))?;
        let found = answer.meta.size;
        if let Some(expected) = left.object.filter(|expected| *expected != found) {
            let problem = format!("has {found} bytes, the manifest says {expected}");
            return Err(Fault::content(problem));
        }
        if answer.range.start != start {
            return Err(Fault::passing("answered with other bytes than were asked for"));
        }
        left.range.end = end.min(found);
        let mut body = answer.into_stream();
        while !left.range.is_empty() {
            let chunk = timeout(self.patience.silence, body.next()).await;
            let chunk = chunk.map_err(|_| self.silent())?;
            let chunk = chunk.ok_or_else(|| Fault::passing("ended in the middle of its bytes"))?;
            let chunk = chunk.map_err(|error| self.fault(&error))?;
            if chunk.len() as u64 > left.range.end - left.range.start {
                return Err(too_much());
            }
            take(&chunk)?;
            left.range.start += chunk.len() as u64;
        }
        Ok(())
    }

    fn silent(&self) -> Fault {
        Fault::passing(format!("said nothing for {:?}", self.patience.silence))
    }

    /// What an error of the client means. Its text is cleared of credentials, and it goes no further.
    fn fault(&self, error: &object_store::Error) -> Fault {
        let text = self.place.secrets.scrub(&chain(error));
        let advice = self.place.provider.advice();
        match (error, status(&text)) {
            (object_store::Error::NotFound { .. }, _) => Fault::refused(
                "is not there (404): copy the packed data set there as it is, or correct the URL",
            ),
            (_, Some(401 | 403))
            | (
                object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. },
                _,
            ) => Fault::refused(format!("is refused: {text}; {advice}")),
            (_, Some(408 | 425 | 429)) => Fault::passing(format!("failed: {text}")),
            (_, Some(400..500)) => {
                Fault::refused(format!("is refused: {text}; correct the URL, and {advice}"))
            }
            _ => Fault::passing(format!("failed: {text}")),
        }
    }
}

impl Fault {
    fn may_pass(&self) -> bool {
        self.kind == crate::fault::Kind::Passing
    }

    /// The fault after all tries.
    fn after(self, failures: u64, provider: Provider) -> Self {
        // Without credentials the client asks the machine's own metadata service for some.
        let asked_machine =
            ["169.254.", "metadata.google"].iter().any(|m| self.problem.contains(m));
        let advice = if asked_machine { provider.advice() } else { "see whether the store is up" };
        Self {
            problem: format!("{}; given up after {failures} tries: {advice}", self.problem),
            ..self
        }
    }
}

fn too_much() -> Fault {
    Fault::passing("answered with more bytes than were asked for")
}

/// An error with its sources, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

/// The status that the client's text names.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Names a URL by a number.
fn seed(url: &str) -> u64 {
    u64::from_le_bytes(*blake3::hash(url.as_bytes()).as_bytes().first_chunk().expect("32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_differ_by_key() {
        let patience = Patience::default();
        let pauses = |key: u64| -> Vec<u128> {
            (1..9).map(|n| patience.pause(Key::new(key), n).as_millis()).collect()
        };
        let limits = [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000];
        for key in 0..50 {
            let within = |(pause, limit): (&u128, u128)| (limit / 2..=limit).contains(pause);
            assert!(pauses(key).iter().zip(limits).all(within), "{:?}", pauses(key));
        }
        assert_eq!(pauses(3), pauses(3));
        assert_ne!(pauses(3), pauses(4));
    }
}
