//! One run under attack: a coordinator and its workers by slot, each of them started again when it ends, as a supervisor
//! would, with a network, a clock and a disk that can fail.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use lockstep_data::{Manifest, Order, OrderConfig};
use serde_json::Value;

use super::audit::History;
use super::proxy::{Network, Proxy};
use super::tail::Tail;
use crate::{Process, Scene, fake_nccl, program_path};

/// Workers that train together.
pub(super) const WORLD: usize = 4;

/// Where the collectives of a worker seem to be; its own address is the usual loopback one, at the same port.
const PEERS_SEE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Whose faults are the coordinator's; those of a worker bear the number of its slot.
const COORDINATOR: &str = "coordinator";

/// The sample order of the preset `tiny`.
const ORDER: OrderConfig = OrderConfig { seed: 0, global_batch: 64, lanes: 64, shuffle_block: 16 };

/// A run of [`WORLD`] workers, and spares.
#[derive(Debug)]
pub struct Arena {
    pub(super) scene: Scene,
    coordinator: Process,
    address: SocketAddr,
    settings: Vec<String>,
    pub(super) seats: Vec<Seat>,
}

/// A worker and what surrounds it.
#[derive(Debug)]
pub(super) struct Seat {
    slot: usize,
    worker: Process,
    /// Between it and the coordinator.
    pub(super) to_coordinator: Proxy,
    /// Between it and the peers that dial it: all of higher rank.
    pub(super) to_peers: Proxy,
    applied: Tail,
    log: Tail,
    /// The newest step that it applied, and in which world.
    pub(super) at: Place,
    /// Worlds that it has left.
    pub(super) left: usize,
}

/// A step of a world.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The world.
    pub generation: u64,
    /// The step.
    pub step: u64,
}

impl Arena {
    /// Starts everything. `settings` are `KEY=VALUE` of the run, beside those of the preset `tiny`.
    pub fn start(spares: usize, settings: &[&str]) -> Self {
        let scene = Scene::new();
        fs::create_dir(scene.path("applied")).expect("a folder for the logs");
        let settings: Vec<String> = settings.iter().map(|set| (*set).to_owned()).collect();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        write_faults(&scene, COORDINATOR, 0, Disk::Fine);
        let mut coordinator = coordinate(&scene, anywhere, &settings);
        let port_file = scene.path("port");
        let port = || fs::read_to_string(&port_file).unwrap_or_default().trim().to_owned();
        coordinator.wait_until(|| !port().is_empty());
        let address = port().trim_start_matches("http://").parse().expect("its address");
        let seats = (0..WORLD + spares).map(|slot| Seat::take(&scene, slot, address)).collect();
        Self { scene, coordinator, address, settings, seats }
    }

    /// Starts again what has ended, unless it must not be.
    pub fn tend(&mut self) {
        if let Some(code) = self.coordinator.ended() {
            assert!(matches!(code, None | Some(75)), "coordinator: {}", self.coordinator.said());
            self.coordinator = coordinate(&self.scene, self.address, &self.settings);
        }
        for seat in &mut self.seats {
            let Some(code) = seat.worker.ended() else { continue };
            let may = matches!(code, None | Some(0 | 75));
            assert!(may, "worker {} ended with {code:?}: {}", seat.slot, seat.worker.said());
            seat.worker = work(&self.scene, seat.slot, &seat.to_coordinator, &seat.to_peers);
        }
    }

    /// Sends a signal to the worker in a slot.
    pub fn signal(&self, slot: usize, name: &str) {
        self.seats[slot].worker.signal(name);
    }

    /// Sends a signal to the coordinator.
    pub fn signal_coordinator(&self, name: &str) {
        self.coordinator.signal(name);
    }

    /// Changes the network of one worker.
    pub fn network(&self, slot: usize, to_coordinator: Network, to_peers: Network) {
        self.seats[slot].to_coordinator.set(to_coordinator);
        self.seats[slot].to_peers.set(to_peers);
    }

    /// Sets the clock and the disk of one worker.
    pub(super) fn machine(&self, slot: usize, clock_seconds: i64, disk: Disk) {
        write_faults(&self.scene, &slot.to_string(), clock_seconds, disk);
    }

    /// Sets the disk of the coordinator.
    pub(super) fn store(&self, disk: Disk) {
        write_faults(&self.scene, COORDINATOR, 0, disk);
    }

    /// Asks for a failpoint of one worker (`worker/src/failpoints.rs`).
    pub(super) fn failpoint(&self, slot: usize, name: &str, content: &str) {
        let folder = self.scene.path(&format!("failpoints-{slot}"));
        fs::write(folder.join("next"), content).expect("a failpoint");
        fs::rename(folder.join("next"), folder.join(name)).expect("a failpoint");
    }

    /// Looks at what the workers have written; the newest step that any of them has applied.
    pub fn look(&mut self) -> Place {
        self.seats.iter_mut().for_each(Seat::look);
        self.seats.iter().map(|seat| seat.at).max().unwrap_or_default()
    }

    /// The slots of the workers that have applied a step of the newest world.
    pub fn members(&self) -> Vec<usize> {
        let newest = self.seats.iter().map(|seat| seat.at.generation).max();
        let seats = self.seats.iter().filter(|seat| Some(seat.at.generation) == newest);
        seats.map(|seat| seat.slot).collect()
    }

    /// The coordinator's events from number `since` on; none while it is away.
    pub fn events(&self, since: u64) -> Vec<Value> {
        let said = self.operate(&["events", "--json", "--since", &since.to_string()]);
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Runs a command of the coordinator against this one; what it printed.
    pub fn operate(&self, arguments: &[&str]) -> String {
        let address = format!("http://{}", self.address);
        let output = Command::new(program_path("coordinator"))
            .args(arguments)
            .args(["--addr", &address])
            .stderr(Stdio::null())
            .output()
            .expect("the program starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the worker in a slot has said, over all of its processes.
    pub fn said(&self, slot: usize) -> String {
        self.seats[slot].worker.said()
    }

    /// What the coordinators have said.
    pub fn coordinator_said(&self) -> String {
        self.coordinator.said()
    }

    /// Ends the run at a step edge.
    pub fn stop(mut self) -> History {
        self.coordinator.terminate();
        let coordinator = self.coordinator.wait();
        assert_eq!(coordinator.code, Some(0), "{}", coordinator.said);
        for seat in self.seats.drain(..) {
            let ended = seat.worker.wait();
            assert_eq!(ended.code, Some(0), "{}", ended.said);
        }
        let sizes = Manifest::load(&self.scene.path("data")).expect("shards").shard_sizes();
        let order = Order::new(&sizes, ORDER).expect("a sample order");
        History::read(&self.scene.path("applied"), &order)
    }
}

impl Seat {
    fn take(scene: &Scene, slot: usize, coordinator: SocketAddr) -> Self {
        let to_coordinator = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), coordinator);
        let to_peers = Proxy::start_beside(PEERS_SEE, Ipv4Addr::LOCALHOST);
        fs::create_dir(scene.path(&format!("failpoints-{slot}"))).expect("a folder");
        write_faults(scene, &slot.to_string(), 0, Disk::Fine);
        let worker = work(scene, slot, &to_coordinator, &to_peers);
        let applied = Tail::new(applied_log(scene, slot));
        let log = Tail::new(scene.path(&format!("worker-{slot}.log")));
        let (at, left) = (Place::default(), 0);
        Self { slot, worker, to_coordinator, to_peers, applied, log, at, left }
    }

    fn look(&mut self) {
        for line in self.applied.read() {
            let applied = &line["applied"];
            if let (Some(generation), Some(step)) =
                (applied["generation"].as_u64(), applied["step"].as_u64())
            {
                self.at = self.at.max(Place { generation, step });
            }
        }
        self.left += self.log.read().iter().filter(|line| line["message"] == "world ended").count();
    }
}

/// Whether a worker can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Fine,
    Full,
}

/// Milliseconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the times of the coordinator's events"
)]
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    u64::try_from(since.as_millis()).expect("a clock before the year 584 million")
}

fn coordinate(scene: &Scene, listen: SocketAddr, settings: &[String]) -> Process {
    let listen = listen.to_string();
    let mut arguments = vec!["--preset", "tiny", "--world", "4", "--state-dir", "state"];
    arguments.extend([
        "--listen",
        &listen,
        "--metrics-listen",
        "127.0.0.1:0",
        "--port-file",
        "port",
    ]);
    arguments.extend(settings.iter().flat_map(|set| ["--set", set]));
    let faults = faults_file(scene, COORDINATOR);
    let environment = [
        ("LD_PRELOAD", OsStr::new(env!("LOCKSTEP_FAULTS_LIBRARY"))),
        ("LOCKSTEP_FAULTS", faults.as_os_str()),
    ];
    scene.start_with("coordinator", "coordinator", &arguments, &environment)
}

fn work(scene: &Scene, slot: usize, to_coordinator: &Proxy, to_peers: &Proxy) -> Process {
    let coordinator = format!("http://{}", to_coordinator.address());
    let peers = to_peers.address();
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, peers.port())).to_string();
    let (advertise, slot_text) = (peers.ip().to_string(), slot.to_string());
    let log = applied_log(scene, slot);
    let mut arguments: Vec<&OsStr> = vec!["--applied-log".as_ref(), log.as_os_str()];
    for (option, value) in [
        ("--coordinator", coordinator.as_str()),
        ("--data", "data"),
        ("--checkpoints", "checkpoints"),
        ("--threads", "1"),
        ("--slot", &slot_text),
        ("--collective-bind", &bind),
        ("--collective-advertise", &advertise),
        ("--log-format", "json"),
    ] {
        arguments.extend([OsStr::new(option), OsStr::new(value)]);
    }
    let (failpoints, faults) =
        (scene.path(&format!("failpoints-{slot}")), faults_file(scene, &slot_text));
    let preload = [OsStr::new(env!("LOCKSTEP_FAULTS_LIBRARY")), fake_nccl().as_os_str()]
        .join(OsStr::new(":"));
    let environment = [
        ("OMP_NUM_THREADS", OsStr::new("1")),
        ("LD_PRELOAD", preload.as_os_str()),
        ("LOCKSTEP_FAULTS", faults.as_os_str()),
        ("LOCKSTEP_FAILPOINTS", failpoints.as_os_str()),
    ];
    scene.start_with(&format!("worker-{slot}"), "worker", &arguments, &environment)
}

fn applied_log(scene: &Scene, slot: usize) -> PathBuf {
    scene.path("applied").join(format!("{slot}.jsonl"))
}

fn faults_file(scene: &Scene, of: &str) -> PathBuf {
    scene.path(&format!("faults-{of}"))
}

/// As `faults.c` reads it. Written in place, since a process has it mapped.
fn write_faults(scene: &Scene, of: &str, clock_seconds: i64, disk: Disk) {
    let full = i64::from(disk == Disk::Full);
    let bytes = [clock_seconds.to_ne_bytes(), full.to_ne_bytes()].concat();
    overwrite(&faults_file(scene, of), &bytes).expect("the faults of a process");
}

fn overwrite(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?.write_all(bytes)
}
