//! The coordinator's program as a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lockstep_proto::Destination;

use super::PATIENCE;

/// A running coordinator. It is killed with the value.
pub(crate) struct Process {
    child: Child,
    pub(crate) destination: Destination,
}

impl Process {
    /// Starts it with its state in `folder`, and waits until it listens. Port 0: any free one.
    pub(crate) async fn start(folder: &Path, port: u16, args: &[&str]) -> Self {
        let port_file = folder.join("port");
        // One from a coordinator before this one.
        drop(std::fs::remove_file(&port_file));
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log"));
        let child = Command::new(env!("CARGO_BIN_EXE_coordinator"))
            .args(["--preset", "tiny", "--metrics-listen", "127.0.0.1:0"])
            .args(["--listen", &listen.to_string()])
            .arg("--port-file")
            .arg(&port_file)
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(args)
            .stderr(Stdio::from(log.expect("the folder can be written to")))
            .spawn()
            .expect("the coordinator starts");
        let written = async {
            loop {
                if let Ok(uri) = std::fs::read_to_string(&port_file) {
                    return uri.trim().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let uri = tokio::time::timeout(PATIENCE, written).await;
        let uri = uri.unwrap_or_else(|_| panic!("it does not listen: {}", log_of(folder)));
        Self { child, destination: Destination::plain(uri) }
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        let port = self.destination.uri().rsplit(':').next();
        port.expect("a URI with a port").parse().expect("a port")
    }

    /// Ends it at this very moment, as a power cut does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is there to be killed");
        self.child.wait().expect("it is gone");
    }

    /// Seconds of processor time that it has used, and its memory in MiB.
    pub(crate) fn usage(&self) -> (f64, f64) {
        usage_of(&self.child.id().to_string())
    }
}

/// As [`Process::usage`], of any process, or of this one (`self`).
pub(crate) fn usage_of(process: &str) -> (f64, f64) {
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        std::fs::read_to_string(path).expect("Linux has it")
    };
    let stat = read("stat");
    // Behind the name, which may hold spaces: state is the first field, utime and stime the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("ticks")).sum();
    let status = read("status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kib: f64 = rss.trim().trim_end_matches(" kB").parse().expect("a number");
    (ticks / 100.0, kib / 1024.0)
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the coordinators of a folder have logged.
pub(crate) fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}
