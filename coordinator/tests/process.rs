//! The binary: its exit codes, its files and its signals.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

const ANY_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];

#[test]
fn an_unknown_key_and_a_world_of_zero_are_both_told_and_exit_with_42() {
    let output = coordinator(&["--world", "0", "--set", "schedule.stepz=5"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(42), "{text}");
    assert!(text.contains("run.world") && text.contains("schedule.stepz"), "{text}");
}

#[test]
fn an_unknown_flag_exits_with_42_and_help_with_0() {
    assert_eq!(coordinator(&["--wrold", "2"]).status.code(), Some(42));
    assert_eq!(coordinator(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_missing_configuration_file_is_named() {
    let output = coordinator(&["--config", "no-such-file.toml"]);
    assert_eq!(output.status.code(), Some(42));
    assert!(stderr(&output).contains("read the configuration no-such-file.toml"));
}

#[test]
fn the_printed_configuration_names_origins() {
    let output = coordinator(&["--preset", "tiny", "--world", "3", "--print-config"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("world = 3  # command line"), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn nobody_to_ask_for_a_status_is_an_error_that_may_pass() {
    let output = coordinator(&["status", "--addr", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(75));
    let error = stderr(&output);
    assert!(error.contains("cannot reach the coordinator at http://127.0.0.1:1"), "{error}");
    assert_eq!(error.matches("Connection refused").count(), 1, "{error}");
}

#[test]
fn a_terminated_coordinator_has_told_its_port_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let port_file = folder.path().join("port");
    let mut child = Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["--preset", "tiny", "--world", "2", "--log-format", "json"])
        .args(ANY_PORTS)
        .arg("--port-file")
        .arg(&port_file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    // The line about the run comes after the one about the port, and after the port file.
    let waiting = log.find(|line| line.as_ref().unwrap().contains("waiting for workers")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&waiting.unwrap()).unwrap();
    assert_eq!(line["phase"], "forming");
    let uri = std::fs::read_to_string(&port_file).unwrap();
    assert!(uri.starts_with("http://127.0.0.1:"), "{uri}");

    let terminated = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(terminated.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn coordinator(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coordinator")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
