//! Runs that read their data from a server, against the same run on the folder.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lockstep_tests::{Process, Scene};

/// Starts a worker of the run at `address` that reads the data set at `url`.
fn join(
    scene: &Scene,
    name: &str,
    address: &str,
    url: &str,
    more: &[&str],
    variables: &[(&str, &str)],
) -> Process {
    let mut arguments = vec!["--coordinator", address, "--data", url, "--threads", "1"];
    arguments.extend(["--checkpoints", "remote-ck", "--data-cache", "cache"]);
    arguments.extend(more);
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| (*name, OsStr::new(value))).collect();
    scene.start_with(name, "worker", &arguments, &variables)
}

/// Trains on the set at `url` and on the folder; every number must be the same.
fn assert_trains_as_on_the_folder(scene: &Scene, url: &str, variables: &[(&str, &str)]) {
    let local = scene.run("local", 1, &[]);
    for reads in ["whole", "ranged"] {
        let name = format!("remote-{reads}");
        let (coordinator, address) = scene.serve(&name, 1, &[]);
        let worker =
            join(scene, &format!("{name}-0"), &address, url, &["--data-reads", reads], variables);
        for process in [worker, coordinator] {
            let ended = process.wait();
            assert_eq!(ended.code, Some(0), "{}", ended.said);
        }
        assert_eq!(scene.losses(&name), local, "{reads}");
        assert!(scene.state("remote-ck", 20) == scene.state("local-ck", 20), "{reads}");
        fs::remove_dir_all(scene.path("remote-ck")).expect("a checkpoint folder");
    }
}

/// A server in Python, which prints where it is.
struct Server {
    child: Child,
    said: String,
}

impl Server {
    /// Starts a script of `tests/reference` on the scene's folder.
    fn new(scene: &Scene, python: &str, script: &str) -> Self {
        let mut child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(script))
            .arg(scene.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}"));
        let mut said = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut said).expect("a line of text");
        Self { child, said: said.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_run_on_a_web_server_is_the_run_on_the_folder() {
    let scene = Scene::new();
    let server = Server::new(&scene, "python3", "serve_http.py");
    assert_trains_as_on_the_folder(&scene, &format!("{}/data", server.said), &[]);
}

#[test]
fn a_data_set_that_is_not_on_the_server_ends_a_worker_with_42() {
    let scene = Scene::empty();
    let server = Server::new(&scene, "python3", "serve_http.py");
    let url = format!("{}/nothing", server.said);
    let ended = join(&scene, "w", "http://127.0.0.1:9", &url, &[], &[]).wait();
    assert_eq!(ended.code, Some(42), "{}", ended.said);
    let said = format!("{url}/manifest.json is not there (404)");
    assert!(ended.said.contains(&said), "{}", ended.said);
}

/// `LOCKSTEP_INTEROP_PYTHON` names a Python with `moto[server]`; `make interop` sets one up.
#[test]
#[ignore = "needs Python with moto[server]"]
fn a_run_on_an_s3_server_is_the_run_on_the_folder_and_its_credentials_stay_hidden() {
    let scene = Scene::new();
    let python = std::env::var("LOCKSTEP_INTEROP_PYTHON").unwrap_or_else(|_| "python3".into());
    let server = Server::new(&scene, &python, "serve_s3.py");
    let s3: serde_json::Value = serde_json::from_str(&server.said).expect("JSON");
    let [endpoint, url, id, secret] =
        ["endpoint", "url", "id", "secret"].map(|name| s3[name].as_str().expect("text"));
    let variables = |secret| {
        [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("RUST_LOG", "trace"),
        ]
    };
    assert_trains_as_on_the_folder(&scene, url, &variables(secret));

    let wrong = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00";
    let refused = join(&scene, "refused", "http://127.0.0.1:9", url, &[], &variables(wrong)).wait();
    assert_eq!(refused.code, Some(42), "{}", refused.said);
    assert!(refused.said.contains("check AWS_ACCESS_KEY_ID"), "{}", refused.said);
    for log in fs::read_dir(scene.path("")).unwrap().map(|entry| entry.unwrap().path()) {
        if log.extension().is_some_and(|ending| ending == "log") {
            let said = fs::read_to_string(&log).unwrap();
            assert!(!said.contains(secret) && !said.contains(wrong), "{}", log.display());
        }
    }
}
