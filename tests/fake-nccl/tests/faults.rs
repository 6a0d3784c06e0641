//! The NCCL backend against the fake library, with real processes: what it computes, and what comes of
//! every fault in `worker/collective/NCCL.md`.

#![expect(clippy::unwrap_used, reason = "a test that can't go on must stop")]

#[path = "../src/rank/buffer.rs"]
mod buffer;
#[path = "../src/rank/everything.rs"]
mod everything;
mod harness;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use lockstep_collective::{AbortHandle, HostListener, Rank, WorldSpec};

use crate::harness::{Played, Ranks, fake};

/// For operations that are to pass their deadline.
const IMPATIENT: Duration = Duration::from_secs(2);

/// A table of `NCCL.md`, by the heading before it: its rows as lists of cells.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let page = include_str!("../../../worker/collective/NCCL.md");
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// What is wrong with how a rank ended, if something is.
fn fault_of(played: &Played, expected: &str) -> Option<String> {
    let code = match expected.split(':').next().unwrap() {
        "works" => Some(0),
        "stop" => Some(1),
        "rejoin" => Some(3),
        "75" => Some(75),
        "dies" => None,
        other => panic!("no such end: {other}"),
    };
    let missing = quoted(expected).find(|words| !played.failure().contains(words));
    (played.code != code || missing.is_some())
        .then(|| format!("expected {expected}, found {:?}: {}", played.code, played.output))
}

fn play_row(row: &[&str]) -> Vec<String> {
    let [what, scenario, script, ends @ ..] = row else { panic!("{row:?}") };
    let [scenario, script] = [scenario, script].map(|cell| quoted(cell).next().unwrap());
    let waits = ["hang", "busy", "stuck"].iter().any(|word| script.contains(word));
    let mut ranks = Ranks::of(2, scenario).script(script);
    if scenario == "diverge" || waits && scenario == "work" {
        ranks = ranks.deadline(IMPATIENT);
    }
    let played = ranks.play();
    let pairs = played.iter().zip(ends);
    let faults = pairs.filter_map(|(played, expected)| fault_of(played, expected));
    faults.map(|fault| format!("{what}: {fault}")).collect()
}

#[test]
fn every_fault_in_the_table_leads_where_the_table_says() {
    let rows = table("In a world of two ranks");
    assert!(rows.len() > 25, "{}", rows.len());
    // Several at once: some wait for a deadline.
    let faults: Vec<_> = thread::scope(|scope| {
        let playing: Vec<_> = (0..6)
            .map(|lane| {
                let rows = rows.iter().skip(lane).step_by(6);
                scope.spawn(move || rows.flat_map(|row| play_row(row)).collect::<Vec<_>>())
            })
            .collect();
        playing.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_library_that_cannot_be_used_is_refused_in_the_words_of_the_table() {
    let scratch = tempfile::tempdir().unwrap();
    let text = scratch.path().join("libnccl.so.2");
    fs::write(&text, "no library").unwrap();
    let copies = scratch.path().join("copy");
    fs::create_dir(&copies).unwrap();
    let copy = copies.join("libnccl.so.2");
    fs::copy(fake(), &copy).unwrap();
    for row in table("Loading the library") {
        let [what, played_as, says] = row[..] else { panic!("{row:?}") };
        let ranks = Ranks::of(1, "work");
        let ranks = match played_as {
            "a path that leads nowhere" => ranks.library("/nowhere/libnccl.so.2".into()),
            "a text file" => ranks.library(text.clone()),
            "the C library" => ranks.library(c_library()),
            "a second copy, preloaded" => ranks.preload(copy.clone()),
            script => ranks.script(quoted(script).next().unwrap()),
        };
        let played = &ranks.play()[0];
        assert_eq!(played.code, Some(1), "{what}: {}", played.output);
        for words in quoted(says) {
            assert!(played.failure().contains(words), "{what}: {}", played.output);
        }
    }
}

/// The one that this process uses.
fn c_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("/libc.so")).unwrap();
    line.split_once('/').map(|(_, path)| PathBuf::from(format!("/{path}"))).unwrap()
}

#[test]
fn a_library_that_is_in_memory_is_used_whatever_its_path() {
    let scratch = tempfile::tempdir().unwrap();
    let copy = scratch.path().join("libnccl.so.2");
    fs::copy(fake(), &copy).unwrap();
    let played = &Ranks::of(1, "work").preload(copy).library_unset().play()[0];
    assert_eq!(played.code, Some(0), "{}", played.output);
}

#[test]
fn every_operation_gives_the_bits_of_the_host_backend() {
    for world in 1..=3 {
        let expected = on_hosts(world);
        let played = Ranks::of(world, "everything").play();
        for (rank, played) in played.iter().enumerate() {
            assert_eq!(played.results(), [expected[rank].as_str()], "{}", played.output);
        }
    }
}

/// The same work over TCP, by rank.
fn on_hosts(world: u32) -> Vec<String> {
    let ample = Duration::from_mins(1);
    let bind = |_| HostListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listeners: Vec<_> = (0..world).map(bind).collect();
    let spec = WorldSpec {
        run_id: "test".into(),
        generation: 1,
        rank: Rank(0),
        peers: listeners.iter().map(HostListener::local_addr).collect(),
        secret: [7; 32].into(),
        connect_deadline: ample,
        op_deadline: ample,
        channels: 1,
    };
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..)
            .map(Rank)
            .zip(&listeners)
            .map(|(rank, listener)| {
                let spec = WorldSpec { rank, ..spec.clone() };
                scope.spawn(move || {
                    let mut ends = listener.connect(&spec, &AbortHandle::new()).unwrap();
                    let bits = everything::everything(&mut ends[0]).unwrap();
                    let mut hasher = DefaultHasher::new();
                    bits.hash(&mut hasher);
                    format!("{} bytes, {:016x}", bits.len(), hasher.finish())
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn an_operation_begins_after_what_the_null_stream_does_to_its_memory() {
    for played in Ranks::of(2, "after-the-null-stream").play() {
        assert_eq!(played.code, Some(0), "{}", played.output);
    }
}

#[test]
fn survivors_form_the_next_world_in_the_same_process_with_fresh_ids() {
    // Of the first world's two communicators, one fails; the other one ends with it.
    for fault in [
        "rank=1,comm=0,sequence=8,error=3",
        "rank=1,comm=1,sequence=5,async=6",
        "rank=1,comm=0,sequence=3,hang",
        "comm=1,init-error=2",
    ] {
        let played = Ranks::of(3, "recover").script(fault).deadline(IMPATIENT).play();
        for played in played {
            assert_eq!(played.code, Some(0), "{fault}: {}", played.output);
            let last = *played.results().last().unwrap();
            assert_eq!(last, "worked in generation 2", "{fault}: {}", played.output);
        }
    }
}

#[test]
fn an_abort_ends_what_is_pending_within_a_second() {
    for (scenario, script) in [("abort", "sequence=2,hang"), ("abort-forming", "init-hang")] {
        for played in Ranks::of(2, scenario).script(script).play() {
            let [millis] = played.results()[..] else { panic!("{}", played.output) };
            assert!(millis.parse::<u64>().unwrap() < 1000, "{scenario}: {}", played.output);
        }
    }
}

#[test]
fn ranks_part_in_peace_but_do_not_wait_for_ever() {
    let warning = "the ranks did not part in peace";
    for (script, warned) in [("", false), ("rank=1,parting-hang", true)] {
        for played in Ranks::of(2, "work").script(script).play() {
            assert_eq!(played.code, Some(0), "{}", played.output);
            assert_eq!(played.log.contains(warning), warned, "{script}: {}", played.log);
        }
    }
}

#[test]
fn the_log_of_an_abort_shows_the_last_operations() {
    let played = Ranks::of(2, "work").script("rank=1,sequence=12,error=3").play();
    let log = &played[1].log;
    for line in
        ["all-reduce 11 (Sum of 1 F64, generation 1): 8 bytes, issued at ", "all-reduce 12 "]
    {
        assert!(log.contains(line), "{log}");
    }
    let last = log.lines().rfind(|line| line.contains("in the history")).unwrap();
    assert!(last.contains("800000 bytes") && last.contains("not over"), "{last}");
}
