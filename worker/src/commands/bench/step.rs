//! `worker bench step`: optimizer steps on random images, on this machine alone.
//!
//! The engine, the collectives and the configuration are those of training; only the images are noise,
//! so no input pipeline is measured. With `--world W` the ranks are threads of this process that talk
//! over loopback.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use lockstep_collective::{AbortHandle, CollectiveError, HostListener, Rank, Reduction, WorldSpec};
use lockstep_nn::{Byol, Rates, Views, step};
use lockstep_proto::config::RunConfig;
use lockstep_proto::layers::{Layers, parse_assignment};
use serde::Serialize;
use tch::Device;
use tracing_subscriber::layer::SubscriberExt;

use super::stopwatch::{Stopwatch, Times};
use crate::commands::Misuse;
use crate::commands::output::Format;
use crate::run::set_threads;
use crate::world::communicators;
use crate::{device, engine};

/// Spans of the engine that the breakdown is made of; none of them is inside of another.
const PARTS: &[&str] =
    &["convolution", "batch_norm", "statistics", "all_reduce", "optimizer", "ema"];

/// Trains on random images and prints the median speed, and where the time goes.
#[derive(Debug, clap::Args)]
pub(super) struct StepArgs {
    /// Encoder; short for `--set model.arch=A`.
    #[arg(long, default_value = "resnet50", value_name = "A")]
    arch: String,
    /// Side of the views in pixels; short for `--set data.image_size=S`.
    #[arg(long, default_value_t = 224, value_name = "S")]
    size: u32,
    /// Images of each rank per step.
    #[arg(long, default_value_t = 8, value_name = "B")]
    batch: u32,
    /// Numbers that the engine computes in; short for `--set model.dtype=D`.
    #[arg(long, default_value = "f32", value_name = "D")]
    dtype: String,
    /// Threads of each rank; 0: as many as there are cores.
    #[arg(long, default_value_t = 0, value_name = "T")]
    threads: usize,
    /// Ranks, as threads of this process.
    #[arg(long, default_value_t = 1, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=64))]
    world: u32,
    /// `auto`, `cpu`, or `cuda:N`.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Steps that are measured, after two that are not.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Another key of the configuration; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_assignment)]
    set: Vec<(String, String)>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Steps before those that are measured: they allocate.
const WARM_UP: u32 = 2;

/// Figures of one rank's steps.
#[derive(Debug, Serialize)]
struct Figures {
    arch: String,
    size: u32,
    batch: u32,
    dtype: String,
    world: u32,
    device: String,
    /// Median over the steps.
    step_seconds: f64,
    /// Of all ranks.
    images_per_second: f64,
    /// Of the whole process, all ranks and buffers; `None` where the system does not say.
    peak_memory_mib: Option<u64>,
    /// Mean milliseconds of a step in each part; on a GPU, of the host, which runs ahead of it.
    milliseconds: Vec<(&'static str, f64)>,
    /// Share of the gradients' all-reduce that backward hides, in a world of several ranks.
    hidden_share: Option<f64>,
}

/// What a rank measured.
struct Measured {
    /// Of every step.
    times: Vec<Duration>,
    /// Of all steps.
    parts: Times,
    /// An all-reduce of all gradients with nothing beside it.
    all_reduce_alone: Duration,
}

/// Measures, and prints the figures of rank 0.
pub(super) fn run(args: &StepArgs) -> anyhow::Result<ExitCode> {
    let config = configuration(args)?;
    set_threads(args.threads)?;
    let device = device::choose(&args.device, 0)?;
    if device.is_cuda() && args.world > 1 {
        let text = "ranks that are threads talk in host memory; use --world 1 or --device cpu";
        return Err(Misuse(text.into()).into());
    }
    let measured = measure(args, &config, device).context("run the steps")?;
    let figures = figures(args, device, measured);
    Format::from_flag(args.json).print(&text(&figures), &figures)?;
    Ok(ExitCode::SUCCESS)
}

fn configuration(args: &StepArgs) -> anyhow::Result<RunConfig> {
    let short = [
        ("model.arch", args.arch.clone()),
        ("model.dtype", args.dtype.clone()),
        ("data.image_size", args.size.to_string()),
        ("data.eval_resize", args.size.to_string()),
        ("data.lanes", args.world.to_string()),
        ("run.world", args.world.to_string()),
        ("schedule.global_batch", (args.batch * args.world).to_string()),
    ];
    let short = short.into_iter().map(|(key, value)| (key.to_owned(), value));
    let flags = short.chain(args.set.iter().cloned()).collect();
    Ok(Layers { flags, ..Layers::default() }.resolve()?.config)
}

/// What rank 0 measured.
fn measure(
    args: &StepArgs,
    config: &RunConfig,
    device: Device,
) -> Result<Measured, CollectiveError> {
    let any_port = "127.0.0.1:0".parse().expect("an address");
    let listeners: Vec<HostListener> =
        (0..args.world).map(|_| HostListener::bind(any_port)).collect::<Result<_, _>>()?;
    let peers = listeners.iter().map(HostListener::local_addr).collect();
    let spec = WorldSpec {
        run_id: "bench".into(),
        generation: 1,
        rank: Rank(0),
        peers,
        secret: [0; 32].into(),
        connect_deadline: Duration::from_mins(1),
        op_deadline: Duration::from_mins(10),
        channels: 2,
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..)
            .zip(&listeners)
            .map(|(rank, listener)| {
                let spec = WorldSpec { rank: Rank(rank), ..spec.clone() };
                scope.spawn(move || steps_of_a_rank(args, (config, device), listener, &spec))
            })
            .collect();
        let join = |rank: std::thread::ScopedJoinHandle<'_, _>| rank.join().expect("no panic");
        let measured: Vec<Measured> = ranks.into_iter().map(join).collect::<Result<_, _>>()?;
        Ok(measured.into_iter().next().expect("at least one rank"))
    })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn steps_of_a_rank(
    args: &StepArgs,
    (config, device): (&RunConfig, Device),
    listener: &HostListener,
    spec: &WorldSpec,
) -> Result<Measured, CollectiveError> {
    let _no_grad = tch::no_grad_guard();
    let stopwatch = Stopwatch::new(PARTS);
    let subscriber = tracing_subscriber::registry().with(stopwatch.clone());
    let _measured = tracing::subscriber::set_default(subscriber);
    let mut comm = communicators(listener, spec, &AbortHandle::new())?;
    let mut model = Byol::new(engine::model_spec(config, 0, device), config.run.seed);
    let views = noise(args, &model);
    let rates = Rates { learning_rate: 0.1, decay: 0.99 };
    let mut times = Vec::new();
    for index in 0..WARM_UP + args.steps {
        if index == WARM_UP {
            stopwatch.take();
        }
        let started = Instant::now();
        step(&mut model, &views, rates, false, &mut comm)?;
        times.push(started.elapsed());
    }
    let (times, parts) = (times.split_off(WARM_UP as usize), stopwatch.take());
    let mut gradients = vec![0.0_f32; model.layout().len()];
    let mut alone = Vec::new();
    for _ in 0..args.steps {
        comm.gradients.barrier()?;
        let started = Instant::now();
        comm.gradients.all_reduce(gradients.as_mut_slice().into(), Reduction::Sum)?;
        alone.push(started.elapsed());
    }
    Ok(Measured { times, parts, all_reduce_alone: median(&mut alone) })
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Two views of noise, around 0 with values up to 2 as normalized images have them.
fn noise(args: &StepArgs, model: &Byol) -> Views {
    let pixels = args.batch * args.size * args.size * 3;
    let view = |shift: u32| -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "any values will do")]
        (0..pixels).map(|i| 2.0 * ((i + shift) as f32 * 12.9898).sin()).collect()
    };
    let labels = vec![0; args.batch as usize];
    Views::new([&view(0), &view(7)], &labels, args.size, model.spec())
}

fn figures(args: &StepArgs, device: Device, measured: Measured) -> Figures {
    let Measured { mut times, parts, all_reduce_alone } = measured;
    let steps = f64::from(args.steps);
    let total = times.iter().sum::<Duration>();
    let other = total.saturating_sub(parts.values().sum());
    let mean = |time: Duration| time.as_secs_f64() * 1e3 / steps;
    let named =
        PARTS.iter().map(|name| (*name, mean(parts.get(name).copied().unwrap_or_default())));
    let median = median(&mut times).as_secs_f64();
    let waited = parts.get("all_reduce").copied().unwrap_or_default().as_secs_f64() / steps;
    let hidden = 1.0 - (waited / all_reduce_alone.as_secs_f64()).min(1.0);
    Figures {
        arch: args.arch.clone(),
        size: args.size,
        batch: args.batch,
        dtype: args.dtype.clone(),
        world: args.world,
        device: device::name(device),
        step_seconds: median,
        images_per_second: f64::from(args.batch * args.world) / median,
        peak_memory_mib: peak_memory_mib(),
        milliseconds: named.chain([("other", mean(other))]).collect(),
        hidden_share: (args.world > 1).then_some(hidden),
    }
}

/// Most memory that this process ever held, where the system says it (Linux).
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

fn text(figures: &Figures) -> String {
    let Figures { arch, size, batch, dtype, world, device, .. } = figures;
    let memory =
        figures.peak_memory_mib.map_or_else(String::new, |mib| format!(", {mib} MiB at most"));
    let head = format!(
        "{arch}, {size} px, {batch} images a rank, {dtype}, world {world}, {device}\n\
         {:.2} images/s, {:.0} ms a step (median){memory}\n",
        figures.images_per_second,
        figures.step_seconds * 1e3,
    );
    let total: f64 = figures.milliseconds.iter().map(|(_, time)| time).sum();
    let line = |(part, time): &(&str, f64)| {
        format!("  {part:<12} {time:>9.1} ms {:>5.1} %\n", 100.0 * time / total)
    };
    let hidden = figures.hidden_share.map_or_else(String::new, |share| {
        format!("backward hides {:.0} % of the gradients' all-reduce\n", 100.0 * share)
    });
    head + &figures.milliseconds.iter().map(line).collect::<String>() + &hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(world: u32, dtype: &str) -> StepArgs {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        StepArgs {
            arch: "resnet18".into(),
            size: 16,
            batch: 2,
            dtype: dtype.into(),
            threads: 0,
            world,
            device: "cpu".into(),
            steps: 2,
            set: vec![set("model.width", "0.0625"), set("model.projector_hidden", "8")],
            json: false,
        }
    }

    #[test]
    fn ranks_are_measured_together_and_the_parts_add_up() {
        for (world, dtype) in [(1, "bf16"), (2, "f32")] {
            let args = args(world, dtype);
            let config = configuration(&args).unwrap();
            let measured = measure(&args, &config, Device::Cpu).unwrap();
            assert_eq!(measured.times.len(), 2);
            let named: Duration = measured.parts.values().sum();
            let total: Duration = measured.times.iter().sum();
            assert!(Duration::ZERO < named && named <= total, "{:?}", measured.parts);
            let text = text(&figures(&args, Device::Cpu, measured));
            assert_eq!(text.contains("hides"), world > 1, "{text}");
            assert!(text.contains("convolution") && text.contains("images/s"), "{text}");
        }
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        let mut args = args(1, "f32");
        args.set.push(("model.depht".into(), "1".into()));
        assert!(configuration(&args).unwrap_err().to_string().contains("model.depht"));
    }
}
