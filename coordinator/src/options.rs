//! From arguments, file and environment to what the server needs.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use lockstep_proto::config::RunConfig;
use lockstep_proto::layers::{Layers, Resolved};
use lockstep_service::tls_args::ServerTlsArgs;

use crate::cli::ServeArgs;

/// Everything that a server is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run.
    pub config: RunConfig,
    /// Where workers connect.
    pub listen: SocketAddr,
    /// Where `/metrics` is served.
    pub metrics_listen: SocketAddr,
    /// What must survive a restart.
    pub state_dir: Option<PathBuf>,
    /// One JSON line per applied step.
    pub reports: Option<PathBuf>,
    /// Holds what operators must show.
    pub operator_token_file: Option<PathBuf>,
    /// Who is let in, and how.
    pub tls: ServerTlsArgs,
    /// Gets the URI for workers.
    pub port_file: Option<PathBuf>,
}

/// Merges and checks the configuration.
pub fn resolve(args: ServeArgs) -> anyhow::Result<(Options, Resolved)> {
    let file = args.config.as_deref().map(read).transpose()?;
    let mut flags = args.set;
    let worlds = [
        ("run.world", args.world),
        ("run.min_world", args.min_world),
        ("run.max_world", args.max_world),
    ];
    flags.extend(worlds.into_iter().filter_map(|(key, n)| Some((key.to_owned(), n?.to_string()))));
    if let Some(dir) = &args.audit_dir {
        let dir = std::path::absolute(dir).context("find the folder of --audit-dir")?;
        flags.push(("audit.steps".to_owned(), format!("{:?}", args.audit_step)));
        flags.push(("audit.dir".to_owned(), dir.display().to_string()));
    }
    let layers = Layers { preset: args.preset, file, env: environment(), flags };
    let resolved = layers.resolve()?;
    let in_state_dir = args.state_dir.as_deref().map(|dir| dir.join("steps.jsonl"));
    let options = Options {
        config: resolved.config.clone(),
        listen: args.listen,
        metrics_listen: args.metrics_listen,
        reports: args.reports.or(in_state_dir),
        state_dir: args.state_dir,
        operator_token_file: args.operator_token_file,
        tls: args.tls,
        port_file: args.port_file,
    };
    Ok((options, resolved))
}

/// Writes the configuration to stdout, as TOML that `--config` reads back.
pub fn print(resolved: &Resolved) -> anyhow::Result<()> {
    std::io::stdout().write_all(resolved.to_toml().as_bytes()).context("print the configuration")
}

fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the configuration {}", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// All variables that are text; others can't be meant for us.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
