//! The README's generated parts equal what the program says.
//!
//! `UPDATE_README=1 cargo test -p lockstep-proto --test readme` writes them anew.

#![expect(clippy::unwrap_used, reason = "helpers of a test: a failure is the test's")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use lockstep_proto::Exit;
use lockstep_proto::presets::presets;
use lockstep_proto::validate::describe;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

#[test]
fn the_readme_shows_the_configuration_and_the_presets_of_the_program() {
    let readme = fs::read_to_string(README).unwrap();
    let mut wanted = readme.clone();
    for (name, content) in [("configuration", configuration()), ("presets", preset_list())] {
        wanted = with_part(&wanted, name, &content);
    }
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(Path::new(README), &wanted).unwrap();
    } else if readme != wanted {
        let differs = readme.lines().zip(wanted.lines()).find(|(is, should)| is != should);
        panic!(
            "README.md is out of date (first difference: {differs:?}); run \
             `UPDATE_README=1 cargo test -p lockstep-proto --test readme`"
        );
    }
}

#[test]
fn the_exit_codes_of_the_readme_and_the_manifests_are_those_of_the_program() {
    let readme = fs::read_to_string(README).unwrap();
    let (_, section) = readme.split_once("\n### Exit codes\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let codes: Vec<u32> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    // 1 is not in the protocol: commands of the worker's program end with it, without a coordinator.
    let ours = |code: &u32| *code == 1 || Exit::from_code(*code).is_some();
    assert_eq!(codes, (0..256).filter(ours).collect::<Vec<_>>());

    let hopeless = rows.iter().filter(|row| row[2] == "don't restart").map(|row| row[0]);
    let hopeless = hopeless.collect::<Vec<_>>().join(", ");
    assert_eq!(hopeless, format!("{}, {}", Exit::ConfigFault.code(), Exit::DoNotRestart.code()));
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/k8s/workers.yaml");
    let manifest = fs::read_to_string(manifest).unwrap();
    assert!(manifest.contains(&format!("values: [{hopeless}]")), "{hopeless} fail the job");
}

/// One table per section of the configuration.
fn configuration() -> String {
    let mut text = String::new();
    let mut section = "";
    for key in describe() {
        let (table, name) = key.name.split_once('.').unwrap();
        if table != section {
            section = table;
            write!(
                text,
                "\n**`[{table}]`**\n\n| key | default | may be | is |\n|---|---|---|---|\n"
            )
            .unwrap();
        }
        let default = key.default;
        writeln!(text, "| `{name}` | `{default}` | {} | {} |", key.range, key.meaning).unwrap();
    }
    text
}

fn preset_list() -> String {
    let rows =
        presets().iter().map(|preset| format!("| `{}` | {} |\n", preset.name, preset.about()));
    format!("\n| preset | is |\n|---|---|\n{}", rows.collect::<String>())
}

/// `text` with `content` between the markers of the part called `name`.
fn with_part(text: &str, name: &str, content: &str) -> String {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let parts = text
        .split_once(&open)
        .and_then(|(before, rest)| rest.split_once(&close).map(|(_, after)| (before, after)));
    let (before, after) = parts.unwrap_or_else(|| panic!("README.md needs {open}…\n{close}"));
    format!("{before}{open}{content}\n{close}{after}")
}
