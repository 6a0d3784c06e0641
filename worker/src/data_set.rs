//! Data sets by name: a folder, or the URL of one in an object store.

use std::path::{Path, PathBuf};

use anyhow::Context;
use lockstep_data::{CacheConfig, DataFiles, Dataset, Folder};
use lockstep_store::{Reads, StoreConfig, StoreFiles, is_url};

use crate::commands::Misuse;

/// How a data set is read that lies in an object store. Credentials come from the environment only.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_field_names, reason = "the fields are the names of the flags")]
#[command(next_help_heading = "Data in object stores (s3://, gs://, az://, http://, https://)")]
pub struct StoreArgs {
    /// Folder that shards are fetched to; workers of a host share it [default: lockstep in the user's cache folder].
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA_CACHE")]
    data_cache: Option<PathBuf>,

    /// What that folder may hold, in GiB. It should hold what the host's lanes read at a time, twice.
    #[arg(long, value_name = "GIB", default_value = "50", value_parser = gib)]
    data_cache_gib: u64,

    /// Shards that are fetched ahead for each lane.
    #[arg(long, value_name = "N", default_value_t = 1)]
    data_ahead: usize,

    /// Whole shards through the cache, or single samples without it: a quicker start, more requests.
    #[arg(long, value_enum, default_value_t = DataReads::Whole)]
    data_reads: DataReads,
}

/// Whether coefficients of training images are kept on the local disk, for the second and later data epochs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cache of decoded coefficients")]
pub struct CacheArgs {
    /// Folder on a local disk that they are kept in; workers of a host share it. Without it none are.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_COEFFICIENT_CACHE")]
    coefficient_cache: Option<PathBuf>,

    /// What that folder may hold, in GiB; a data set takes about twice the bytes of its JPEGs.
    #[arg(long, value_name = "GIB", default_value = "300", value_parser = gib)]
    coefficient_cache_gib: u64,
}

impl CacheArgs {
    /// Lets loaders of this data set use the cache, if there is one.
    pub(crate) fn apply(&self, dataset: &mut Dataset) -> anyhow::Result<()> {
        let Some(folder) = self.coefficient_cache.clone() else { return Ok(()) };
        let config = CacheConfig { folder, bound: self.coefficient_cache_gib };
        dataset.cache_coefficients(&config).context("open --coefficient-cache")
    }
}

/// [`Reads`] as an argument.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DataReads {
    Whole,
    Ranged,
}

/// GiB as bytes; fractions are allowed.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn gib(text: &str) -> Result<u64, String> {
    let parsed = text.parse().ok().filter(|gib: &f64| (0.001..=1e6).contains(gib));
    let gib = parsed.ok_or("must be a number from 0.001 to 1000000")?;
    Ok((gib * f64::from(1 << 30)) as u64)
}

impl StoreArgs {
    /// Opens the data set at `place`: a folder's is indexed at once, a store's when its shards are read.
    pub(crate) fn open(&self, place: &Path) -> anyhow::Result<Dataset> {
        Ok(if is_url(place) { Dataset::of(self.files(place)?)? } else { Dataset::open(place)? })
    }

    /// The files of the data set at `place`.
    pub(crate) fn files(&self, place: &Path) -> anyhow::Result<Box<dyn DataFiles>> {
        if !is_url(place) {
            return Ok(Box::new(Folder::new(place)));
        }
        let config = StoreConfig {
            reads: match self.data_reads {
                DataReads::Whole => Reads::Whole,
                DataReads::Ranged => Reads::Ranged,
            },
            cache: self.data_cache.clone().map_or_else(users_cache, Ok)?,
            cache_bytes: self.data_cache_gib,
            read_ahead: self.data_ahead,
        };
        let url = place.to_str().context("the URL of the data set is no Unicode")?;
        Ok(Box::new(StoreFiles::new(url, &config, std::env::vars())?))
    }
}

/// Where programs of this user keep what they can fetch again.
fn users_cache() -> Result<PathBuf, Misuse> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let nowhere = "no HOME to keep fetched shards in; name a folder with --data-cache";
    Ok(cache.ok_or_else(|| Misuse(nowhere.to_owned()))?.join("lockstep"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        cache: CacheArgs,
    }

    impl Default for StoreArgs {
        fn default() -> Self {
            parse(&[]).store
        }
    }

    impl Default for CacheArgs {
        fn default() -> Self {
            parse(&[]).cache
        }
    }

    /// The arguments of a command line.
    fn parse(line: &[&str]) -> Command {
        Command::parse_from(std::iter::once("command").chain(line.iter().copied()))
    }

    #[test]
    fn the_size_of_the_cache_is_given_in_gib_with_fractions() {
        assert_eq!(StoreArgs::default().data_cache_gib, 50 << 30);
        assert_eq!(parse(&["--data-cache-gib", "0.5"]).store.data_cache_gib, 1 << 29);
        assert!(
            gib("0").is_err() && gib("-1").is_err() && gib("NaN").is_err() && gib("a").is_err()
        );
    }

    #[test]
    fn a_folder_needs_no_cache_and_a_url_that_is_no_store_is_a_fault_of_input() {
        let packed = crate::testing::packed(12, crate::testing::Color::Red);
        let args = parse(&["--data-cache", "/proc/nowhere"]).store;
        assert_eq!(args.open(&packed.path()).unwrap().manifest().samples(), 12);
        let error = args.open(Path::new("ftp://host/set")).unwrap_err();
        assert!(error.to_string().contains("expected s3://"), "{error}");
        assert!(crate::commands::is_fault_of_input(&error));
    }

    #[test]
    fn coefficients_are_kept_where_a_folder_is_named() {
        let packed = crate::testing::packed(12, crate::testing::Color::Red);
        let folder = tempfile::tempdir().unwrap();
        let mut dataset = packed.open();
        CacheArgs::default().apply(&mut dataset).unwrap();
        let place = folder.path().to_str().unwrap();
        let args = ["--coefficient-cache", place, "--coefficient-cache-gib", "0.5"];
        assert_eq!(parse(&args).cache.coefficient_cache_gib, 1 << 29);
        parse(&args).cache.apply(&mut dataset).unwrap();
        let names = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        assert!(names.iter().any(|name| name.ends_with(".coefficients")), "{names:?}");
        let error = parse(&["--coefficient-cache", "/proc/nowhere"]).cache.apply(&mut dataset);
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.starts_with("open --coefficient-cache: cannot create folder"), "{error}");
    }
}
