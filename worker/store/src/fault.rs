//! Why something could not be fetched, and whether another try may help.

use std::path::{Path, PathBuf};

use lockstep_data::DataError;

/// A failure, as the rest of a sentence that begins with the URL. Holds no credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) problem: String,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Time.
    Passing,
    /// Another URL, other credentials or settings.
    Refused,
    /// Another shard in its place.
    Content,
}

impl Fault {
    pub(crate) fn passing(problem: impl Into<String>) -> Self {
        Self { kind: Kind::Passing, problem: problem.into() }
    }

    pub(crate) fn refused(problem: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, problem: problem.into() }
    }

    pub(crate) fn content(problem: impl Into<String>) -> Self {
        Self { kind: Kind::Content, problem: problem.into() }
    }

    /// For `map_err`: names what failed in the cache.
    pub(crate) fn cache(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let what = format!("could not be cached: cannot {action} {}", path.display());
        move |error| {
            Self::passing(format!("{what}: {error}; make room there, or name another --data-cache"))
        }
    }

    /// The error about the file at `path`.
    pub(crate) fn about(self, path: PathBuf) -> DataError {
        let Self { kind, problem } = self;
        match kind {
            Kind::Passing => DataError::Unavailable { path, problem },
            Kind::Refused => DataError::Refused { path, problem },
            Kind::Content => DataError::BadShard { path, problem },
        }
    }
}
