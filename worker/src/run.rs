//! One worker, from its arguments to its exit code.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use lockstep_collective::HostListener;
use lockstep_data::Dataset;
use lockstep_proto::{DataSet, Destination, Exit, Hello, PROTOCOL_VERSION, ids};
use lockstep_service::exit::Failure;
use lockstep_service::listen::listen;
use lockstep_service::metrics_http;
use lockstep_service::tls_args::ClientTlsArgs;
use tch::Device;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::applied_log::AppliedLog;
use crate::border::border;
use crate::cli::TrainArgs;
use crate::commands::is_fault_of_input;
use crate::data_set::{CacheArgs, StoreArgs};
use crate::meters::Meters;
use crate::place::{Place, first_slot};
use crate::session::{self, SessionFailure, Target};
use crate::supervisor::{self, child};
use crate::trainer::{self, Equipment};
use crate::{device, engine};

/// Takes part in a run until it is over, or supervises those who do.
///
/// # Errors
///
/// What kept it from starting, or ended it, and how the process then exits.
pub fn run(
    args: &TrainArgs,
    tls: &ClientTlsArgs,
    (store, cache): (&StoreArgs, &CacheArgs),
    meters: &Arc<Meters>,
) -> Result<Exit, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    if let Some(processes) = args.procs_per_node.filter(|_| !child::is_supervised()) {
        let first = args.slot.map(ids::Slot).map_or_else(|| first_slot(&variable, processes), Ok);
        return Ok(supervisor::run(processes, first.map_err(Failure::config)?)?);
    }
    let coordinator = tls.destination(&args.coordinator).map_err(Failure::config)?;
    let place = Place::find(&variable).map_err(Failure::config)?;
    let args = if child::is_supervised() {
        child::die_with_supervisor()?;
        args.of_process(place).map_err(Failure::config)?
    } else {
        TrainArgs { slot: args.slot.or(place.slot.map(|slot| slot.0)), ..args.clone() }
    };
    let dataset = store.open(&args.data).and_then(|mut dataset| {
        cache.apply(&mut dataset)?;
        Ok(dataset)
    });
    let ended =
        dataset.and_then(|dataset| take_part((&args, place.local), coordinator, dataset, meters));
    ended.map_err(|error| Failure { exit: exit_for(&error), error })
}

fn take_part(
    (args, local): (&TrainArgs, u32),
    coordinator: Destination,
    dataset: Dataset,
    meters: &Arc<Meters>,
) -> anyhow::Result<Exit> {
    let dataset = Arc::new(dataset);
    let device = device::choose(&args.device, local)?;
    set_threads(args.threads)?;
    let listener = HostListener::bind(args.collective_bind)?;
    let applied_log =
        AppliedLog::open(args.applied_log.as_deref()).context("open --applied-log")?;
    let hello = hello(args, &dataset, device);
    let target = Target { coordinator, hello, patience: args.patience() };
    let equipment = Equipment {
        dataset,
        checkpoints: args.checkpoints.clone(),
        device,
        loader_threads: args.loader_threads.max(1),
        advertised: advertised(args, &listener),
        listener,
        meters: Arc::clone(meters),
        applied_log,
    };

    let (session_end, trainer_end) = border();
    let trainer = std::thread::Builder::new()
        .name("trainer".into())
        .spawn(move || trainer::run(equipment, trainer_end))
        .context("start the trainer's thread")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let served = runtime.block_on(async {
        let _metrics = serve_metrics(args.metrics_listen, meters).await?;
        anyhow::Ok(session::run(target, session_end).await)
    })?;
    // The session is over, so its orders are: the trainer ends with its step at the latest.
    let trained = trainer.join().map_err(|_| anyhow::anyhow!("the trainer panicked; see above"))?;
    trained?;
    Ok(served?)
}

/// Whether another start may help.
fn exit_for(error: &anyhow::Error) -> Exit {
    let refused = matches!(error.downcast_ref(), Some(SessionFailure::Refused(_)));
    if refused || is_fault_of_input(error) { Exit::ConfigFault } else { Exit::RestartMe }
}

/// Serves `/metrics` until the returned guard is dropped.
async fn serve_metrics(
    address: Option<SocketAddr>,
    meters: &Meters,
) -> anyhow::Result<Option<DropGuard>> {
    let Some(address) = address else { return Ok(None) };
    let listener = listen(address, "--metrics-listen").await?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics and /healthz");
    let shutdown = CancellationToken::new();
    tokio::spawn(metrics_http::serve(listener, Arc::new(meters.registry()), shutdown.clone()));
    Ok(Some(shutdown.drop_guard()))
}

fn hello(args: &TrainArgs, dataset: &Dataset, device: Device) -> Hello {
    let manifest = dataset.manifest();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_owned();
    Hello {
        protocol: PROTOCOL_VERSION,
        run_id: args.run_id.clone(),
        worker: ids::WorkerUid(unique_name(&host)),
        slot: args.slot.map(ids::Slot),
        host,
        version: env!("CARGO_PKG_VERSION").into(),
        device: device::name(device),
        data: DataSet {
            fingerprint: manifest.fingerprint(),
            samples: manifest.samples(),
            classes: engine::classes(dataset),
        },
        member: None,
    }
}

/// Unique per process start: host, process id and the time of the start.
#[expect(clippy::disallowed_methods, reason = "a shell: the time only makes a name unique")]
fn unique_name(host: &str) -> String {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since_epoch.map_or(0, |time| time.as_micros());
    format!("{host}-{}-{micros:x}", std::process::id())
}

/// 0 leaves the choice to the libraries: one thread per core.
pub(crate) fn set_threads(threads: usize) -> anyhow::Result<()> {
    if threads == 0 {
        return Ok(());
    }
    tch::set_num_threads(i32::try_from(threads).context("too many --threads")?);
    tch::set_num_interop_threads(1);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("set the number of threads")
}

/// Where peers reach the collectives.
fn advertised(args: &TrainArgs, listener: &HostListener) -> SocketAddr {
    let mut address = listener.local_addr();
    if let Some(ip) = args.collective_advertise {
        address.set_ip(ip);
    }
    address
}
