//! Which file is NCCL.
//!
//! libtorch for CUDA is linked against `libnccl.so.2` of its own wheel, so that file is in memory
//! before we look, under whatever path its rpath says. Two copies in one process corrupt each
//! other; so the one that is loaded is *the* one, and another one is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::NcclError;
use super::error::dotted;
use super::sys::{BOUND, Opened, version};

/// Names the file where libtorch has not loaded one: for another NCCL, and for the fake of the tests. Empty is as good as
/// not set.
pub(super) const VARIABLE: &str = "LOCKSTEP_NCCL_LIBRARY";
/// The name in the wheels, and of the system's packages. (`libnccl.so` is for linking.)
const NAME: &str = "libnccl.so.2";
/// The first version that we have not seen the header of.
const TOO_NEW: u32 = 30_000;
/// What a library for tests exports, to say that it works on host memory.
const ON_HOST: &str = "lockstep_nccl_works_on_host_memory";

/// A libnccl that may be called.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) opened: Opened,
    /// For messages.
    pub(super) name: String,
    pub(super) version: u32,
    /// Whether it works on host memory, and stands in for the CUDA driver too.
    pub(super) on_host: bool,
}

/// Finds the library and checks its version.
pub(super) fn find() -> Result<Found, NcclError> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let asked = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let path = choose(&loaded(&maps), asked)?;
    let name = path.display().to_string();
    let opened = Opened::new(&path).map_err(|tried| NcclError::Absent { tried })?;
    let missing = |symbol| NcclError::MissingSymbol { library: name.clone(), symbol };
    let version = version(opened).map_err(missing)?;
    if !(BOUND..TOO_NEW).contains(&version) {
        return Err(NcclError::Version { library: name, version });
    }
    let on_host = opened.has(ON_HOST);
    tracing::info!(library = name, version = dotted(version), "NCCL found");
    Ok(Found { opened, name, version, on_host })
}

/// The files of NCCL that are in memory, from the text of `/proc/self/maps`.
fn loaded(maps: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from);
    let is_nccl = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnccl.so"))
    };
    maps.lines().filter_map(path).filter(is_nccl).collect()
}

/// The one to use: what is loaded, else what is asked for, else the usual name.
fn choose(loaded: &BTreeSet<PathBuf>, asked: Option<PathBuf>) -> Result<PathBuf, NcclError> {
    let Some(first) = loaded.first() else {
        return Ok(asked.unwrap_or_else(|| NAME.into()));
    };
    let mut others = loaded.iter().skip(1).chain(&asked);
    match others.find(|other| !same(first, other)) {
        Some(other) => Err(NcclError::TwoCopies { loaded: first.clone(), asked: other.clone() }),
        None => Ok(first.clone()),
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f00-7f01 r-xp 00000000 08:01 42    /usr/lib/libc.so.6
7f02-7f03 r--p 00000000 08:01 43    /venv/nvidia/nccl/lib/libnccl.so.2
7f03-7f04 r-xp 00001000 08:01 43    /venv/nvidia/nccl/lib/libnccl.so.2
7f05-7f06 rw-p 00000000 00:00 0     [heap]
7f07-7f08 r-xp 00000000 08:01 44    /opt/libnccl-net.so";

    #[test]
    fn the_library_that_is_in_memory_is_found_wherever_it_lies() {
        let found = loaded(MAPS);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [Path::new("/venv/nvidia/nccl/lib/libnccl.so.2")]
        );
    }

    #[test]
    fn what_is_loaded_comes_before_what_is_asked_for_and_that_before_the_usual_name() {
        let none = BTreeSet::new();
        assert_eq!(choose(&none, None).unwrap(), Path::new("libnccl.so.2"));
        assert_eq!(choose(&none, Some("/a".into())).unwrap(), Path::new("/a"));
        let one = BTreeSet::from([PathBuf::from("/a/libnccl.so.2")]);
        assert_eq!(choose(&one, None).unwrap(), Path::new("/a/libnccl.so.2"));
        assert!(choose(&one, Some("/a/libnccl.so.2".into())).is_ok());
    }

    #[test]
    fn a_second_copy_is_refused_by_name() {
        let one = BTreeSet::from([PathBuf::from("/a/libnccl.so.2")]);
        let error = choose(&one, Some("/b/libnccl.so".into())).unwrap_err().to_string();
        assert!(error.contains("/a/libnccl.so.2") && error.contains("/b/libnccl.so"), "{error}");
        let two = BTreeSet::from([PathBuf::from("/a/libnccl.so.2"), "/c/libnccl.so.2".into()]);
        assert!(matches!(choose(&two, None), Err(NcclError::TwoCopies { .. })));
    }
}
