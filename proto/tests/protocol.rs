//! `coordinator/PROTOCOL.md` names the messages, phases and keys of the program, and no others.

#![expect(clippy::unwrap_used, reason = "helpers of a test: a failure is the test's")]

use std::collections::BTreeSet;
use std::fs;

use lockstep_proto::FILE_DESCRIPTOR_SET;
use lockstep_proto::validate::describe;
use prost_reflect::DescriptorPool;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../coordinator/PROTOCOL.md");

#[test]
fn the_page_has_every_message_of_a_session() {
    for (heading, message) in [
        ("| worker says | when |", "WorkerMessage"),
        ("| coordinator says | and the worker |", "CoordinatorMessage"),
    ] {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let message = pool.get_message_by_name(&format!("lockstep.v1.{message}")).unwrap();
        let kinds =
            message.fields().map(|field| field.kind().as_message().unwrap().name().to_owned());
        assert_eq!(table(heading), kinds.collect::<BTreeSet<_>>());
    }
}

#[test]
fn the_page_has_every_phase_of_a_run() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let phases = pool.get_enum_by_name("lockstep.v1.Phase").unwrap();
    let phases: BTreeSet<_> = phases
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| value.name().strip_prefix("PHASE_").unwrap().to_lowercase())
        .collect();
    assert_eq!(table("| phase | what happens |"), phases);
    let page = fs::read_to_string(PAGE).unwrap();
    let diagram = page.split("```").nth(1).unwrap();
    for phase in phases {
        assert!(diagram.contains(&phase), "`{phase}` is not in the diagram");
    }
}

#[test]
fn every_configuration_key_on_the_page_exists() {
    let page = fs::read_to_string(PAGE).unwrap();
    let known: BTreeSet<_> = describe().iter().map(|key| key.name.to_owned()).collect();
    let named = page.split('`').skip(1).step_by(2);
    let named: Vec<_> =
        named.filter(|name| name.starts_with("run.") || name.starts_with("control.")).collect();
    assert!(named.len() >= 10, "{named:?}");
    for name in named {
        assert!(known.contains(name), "`{name}` is no key");
    }
}

/// The names in the first column of the table under `heading`.
fn table(heading: &str) -> BTreeSet<String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let (_, table) = page.split_once(heading).unwrap_or_else(|| panic!("no table {heading}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect()
}
