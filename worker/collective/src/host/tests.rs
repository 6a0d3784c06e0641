//! Whole worlds on loopback, one thread per rank.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::device::testing::Permanent;
use crate::{Recovery, Refusal};

const LOOPBACK: &str = "127.0.0.1:0";
/// Long enough for the slowest machine: reached only by a test that fails.
const AMPLE: Duration = Duration::from_mins(1);

/// Listeners for `world` ranks, and the description for rank 0.
fn listeners(world: usize) -> (Vec<HostListener>, WorldSpec) {
    let listeners: Vec<_> =
        (0..world).map(|_| HostListener::bind(LOOPBACK.parse().unwrap()).unwrap()).collect();
    let spec = WorldSpec {
        run_id: "test".into(),
        generation: 1,
        rank: Rank(0),
        peers: listeners.iter().map(HostListener::local_addr).collect(),
        secret: [7; 32].into(),
        connect_deadline: AMPLE,
        op_deadline: AMPLE,
        channels: 1,
    };
    (listeners, spec)
}

/// Forms a world and runs `work` on every rank at once; results by rank.
fn on_every_rank<T: Send>(
    world: usize,
    tweak: impl Fn(&mut WorldSpec),
    work: impl Fn(Vec<HostCollective>) -> T + Sync,
) -> Vec<T> {
    let (listeners, spec) = listeners(world);
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..)
            .zip(&listeners)
            .map(|(rank, listener)| {
                let mut spec = WorldSpec { rank: Rank(rank), ..spec.clone() };
                tweak(&mut spec);
                let work = &work;
                scope.spawn(move || {
                    work(listener.connect(&spec, &AbortHandle::new()).expect("the world forms"))
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().expect("the rank ends well")).collect()
    })
}

/// The same with the one channel.
fn in_world<T: Send>(world: usize, work: impl Fn(HostCollective) -> T + Sync) -> Vec<T> {
    on_every_rank(world, |_| (), |mut channels| work(channels.remove(0)))
}

/// Element `index` of rank `rank`'s contribution: of mixed sign and size, so that any other
/// order of summation shows in the bits.
fn element(rank: u32, index: usize) -> f64 {
    let hash = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(rank) << 40);
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let unit = f64::from(u32::try_from(hash >> 32).unwrap()) / f64::from(u32::MAX) - 0.5;
    unit * 10_f64.powi(i32::try_from(hash % 9).unwrap())
}

fn contribution(rank: u32, len: usize) -> Vec<f64> {
    (0..len).map(|index| element(rank, index)).collect()
}

/// `((r₀ + r₁) + r₂) + …`, or the maximum.
fn reference(world: u32, len: usize, reduction: Reduction) -> Vec<f64> {
    let fold = |a: f64, b: f64| match reduction {
        Reduction::Sum => a + b,
        Reduction::Max => a.max(b),
    };
    (0..len)
        .map(|index| {
            (1..world).fold(element(0, index), |sum, rank| fold(sum, element(rank, index)))
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "f32 contributions are rounded f64 ones")]
fn reference_f32(world: u32, len: usize) -> Vec<f32> {
    (0..len)
        .map(|index| (1..world).fold(element(0, index) as f32, |s, r| s + element(r, index) as f32))
        .collect()
}

fn assert_same_bits(got: &[f64], want: &[f64]) {
    let differs = got.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!((got.len(), differs), (want.len(), None));
}

/// Sizes around every threshold: nothing, one element, fewer elements than ranks, the largest
/// small message, the smallest large one, one piece, several pieces with an odd rest.
const SIZES: [usize; 8] = [0, 1, 3, 1000, 4096, 4097, 70_001, 333_333];

#[test]
fn sums_have_the_bits_of_rank_order_on_every_rank_at_every_size() {
    for world in [2, 3, 5, 9] {
        in_world(world, |mut ends| {
            for len in SIZES {
                let mut values = contribution(ends.rank().0, len);
                ends.all_reduce((&mut values[..]).into(), Reduction::Sum).unwrap();
                assert_same_bits(&values, &reference(ends.world(), len, Reduction::Sum));
            }
        });
    }
}

#[test]
fn maxima_are_exact() {
    in_world(3, |mut ends| {
        for len in SIZES {
            let mut values = contribution(ends.rank().0, len);
            ends.all_reduce((&mut values[..]).into(), Reduction::Max).unwrap();
            assert_same_bits(&values, &reference(3, len, Reduction::Max));
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "f32 contributions are rounded f64 ones")]
    fn f32_sums_of_any_length_in_any_world_equal_the_rank_order_reference(
        world in 1_u32..7, lens in prop::collection::vec(0_usize..200_000, 1..4),
    ) {
        in_world(world as usize, |mut ends| {
            for &len in &lens {
                let rank = ends.rank().0;
                let mut values: Vec<_> = (0..len).map(|i| element(rank, i) as f32).collect();
                ends.all_reduce((&mut values[..]).into(), Reduction::Sum).unwrap();
                let want = reference_f32(world, len);
                assert!(values.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        });
    }
}

#[test]
fn lent_buckets_are_reduced_in_issue_order_while_the_engine_goes_on() {
    in_world(3, |mut ends| {
        let mut buffers: Vec<_> =
            SIZES.iter().map(|&len| Permanent::new(contribution(ends.rank().0, len))).collect();
        let pending: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| ends.start_all_reduce(buffer.region(), Reduction::Sum).unwrap())
            .collect();
        assert_eq!(ends.sequence(), SIZES.len() as u64);
        // A blocking call takes its turn behind them.
        ends.barrier().unwrap();
        for (pending, buffer) in pending.into_iter().zip(&buffers) {
            ends.wait(pending).unwrap();
            let len = buffer.values().len();
            assert_same_bits(buffer.values(), &reference(3, len, Reduction::Sum));
        }
    });
}

#[test]
fn channels_do_not_wait_for_one_another() {
    let two_channels = |spec: &mut WorldSpec| spec.channels = 2;
    on_every_rank(2, two_channels, |mut channels| {
        let mut buckets = channels.pop().unwrap();
        let mut statistics = channels.pop().unwrap();
        // Rank 1 issues the bucket only after the small message, which must pass on its own.
        let mut buffer = Permanent::new(contribution(buckets.rank().0, 500_000));
        let early = (buckets.rank() == Rank(0))
            .then(|| buckets.start_all_reduce(buffer.region(), Reduction::Sum).unwrap());
        statistics.barrier().unwrap();
        let pending = early
            .unwrap_or_else(|| buckets.start_all_reduce(buffer.region(), Reduction::Sum).unwrap());
        buckets.wait(pending).unwrap();
        assert_same_bits(buffer.values(), &reference(2, 500_000, Reduction::Sum));
    });
}

#[test]
fn a_broadcast_copies_the_roots_bits_from_whichever_rank() {
    in_world(3, |mut ends| {
        for root in 0..3 {
            let mut buffer = Permanent::new(contribution(ends.rank().0, 100_003));
            ends.broadcast(buffer.region(), Rank(root)).unwrap();
            assert_same_bits(buffer.values(), &contribution(root, 100_003));
        }
    });
}

#[test]
fn an_all_gather_takes_different_lengths_and_returns_them_by_rank() {
    let want: Vec<Vec<u8>> = (0..5).map(|rank| vec![rank; usize::from(rank) * 1000]).collect();
    let all = in_world(5, |mut ends| ends.all_gather(&want[ends.rank().index()]).unwrap());
    assert!(all.iter().all(|got| *got == want));
}

#[test]
fn an_all_gather_of_too_much_is_refused_on_every_rank() {
    let errors = in_world(2, |mut ends| {
        let len = if ends.rank() == Rank(1) { MAX_GATHERED + 1 } else { 1 };
        ends.all_gather(&vec![0; len]).unwrap_err()
    });
    assert!(matches!(errors[1], CollectiveError::TooLarge { rank: Rank(1), .. }), "{errors:?}");
}

#[test]
fn a_world_of_one_needs_nobody() {
    in_world(1, |mut ends| {
        let mut values = contribution(0, 100_000);
        ends.all_reduce((&mut values[..]).into(), Reduction::Sum).unwrap();
        assert_same_bits(&values, &contribution(0, 100_000));
        ends.barrier().unwrap();
        assert_eq!(ends.all_gather(b"x").unwrap(), [b"x"]);
    });
}

#[test]
fn thirty_two_ranks_agree() {
    in_world(32, |mut ends| {
        for len in [64, 20_000] {
            let mut values = contribution(ends.rank().0, len);
            ends.all_reduce((&mut values[..]).into(), Reduction::Sum).unwrap();
            assert_same_bits(&values, &reference(32, len, Reduction::Sum));
        }
    });
}

/// The first failure of every rank when `odd` does something else than the others.
fn diverging(
    world: usize,
    usual: impl Fn(&mut HostCollective) -> Result<(), CollectiveError> + Sync,
    odd: impl Fn(&mut HostCollective) -> Result<(), CollectiveError> + Sync,
) -> Vec<CollectiveError> {
    in_world(world, |mut ends| {
        ends.barrier().unwrap();
        let last = ends.rank().0 + 1 == ends.world();
        let error = if last { odd(&mut ends) } else { usual(&mut ends) }.unwrap_err();
        let again = ends.barrier().unwrap_err();
        assert_eq!(error.to_string(), again.to_string(), "the first failure is final");
        error
    })
}

fn sum(ends: &mut HostCollective, len: usize) -> Result<(), CollectiveError> {
    ends.all_reduce((&mut contribution(ends.rank().0, len)[..]).into(), Reduction::Sum)
}

#[test]
fn ranks_that_diverge_name_both_operations() {
    // Small and direct; small through rank 0; in pieces; another kind altogether.
    let small = diverging(2, |ends| sum(ends, 10), |ends| sum(ends, 11));
    let through_zero = diverging(9, |ends| sum(ends, 10), |ends| sum(ends, 11));
    let large = diverging(2, |ends| sum(ends, 100_000), |ends| sum(ends, 100_001));
    let kinds = diverging(2, |ends| sum(ends, 100_000), HostCollective::barrier);
    for errors in [small, through_zero, large, kinds] {
        for error in [errors.first().unwrap(), errors.last().unwrap()] {
            assert!(matches!(error, CollectiveError::Diverged { .. }), "{errors:?}");
            assert_eq!(error.recovery(), Recovery::Abort);
        }
        let text = errors[0].to_string();
        assert!(text.contains("we issued all-reduce 2 (Sum of 10"), "{text}");
    }
}

#[test]
fn a_dead_peer_is_noticed_at_once_by_everybody() {
    for (world, len) in [(2, 10), (3, 100_000), (9, 10)] {
        let errors = in_world(world, |mut ends| {
            ends.barrier().unwrap();
            if ends.rank() == Rank(1) {
                return None;
            }
            Some(sum(&mut ends, len).unwrap_err())
        });
        for error in errors.into_iter().flatten() {
            assert!(matches!(error, CollectiveError::Connection { .. }), "{error}");
            assert_eq!(error.recovery(), Recovery::Rejoin);
        }
    }
}

#[test]
fn a_silent_peer_is_named_after_the_deadline() {
    let impatient = |spec: &mut WorldSpec| {
        if spec.rank == Rank(0) {
            spec.op_deadline = Duration::from_millis(50);
        }
    };
    let errors = on_every_rank(3, impatient, |mut channels| {
        let ends = &mut channels[0];
        ends.barrier().unwrap();
        if ends.rank() == Rank(1) {
            // Alive and silent, until rank 0 gave up and closed its connections.
            let mut byte = [0];
            let mesh = lock(&ends.mesh);
            return wait_for_close(mesh.stream(Rank(0)), &mut byte);
        }
        Some(sum(ends, 10).unwrap_err())
    });
    let Some(CollectiveError::PeerSilent { peer, op, waited }) = &errors[0] else {
        panic!("{errors:?}")
    };
    assert_eq!(*peer, Rank(1));
    assert!(op.starts_with("all-reduce 2"), "{op}");
    assert!(*waited >= Duration::from_millis(50) && *waited < AMPLE, "{waited:?}");
    assert!(matches!(errors[2], Some(CollectiveError::Connection { .. })), "{errors:?}");
}

/// Reads without answering until the other end closes.
fn wait_for_close(stream: &TcpStream, byte: &mut [u8; 1]) -> Option<CollectiveError> {
    stream.set_nonblocking(false).unwrap();
    let mut stream = stream;
    while stream.read(byte).is_ok_and(|count| count > 0) {}
    None
}

#[test]
fn abort_ends_pending_calls_on_all_ranks_within_a_second() {
    for len in [10, 2_000_000] {
        let delays = in_world(3, |mut ends| {
            ends.barrier().unwrap();
            if ends.rank() == Rank(2) {
                // Never takes part, so that the others are pending; ends when they give up.
                let mesh = lock(&ends.mesh);
                wait_for_close(mesh.stream(Rank(0)), &mut [0]);
                return Duration::ZERO;
            }
            let mut buffer = Permanent::new(contribution(ends.rank().0, len));
            let pending = ends.start_all_reduce(buffer.region(), Reduction::Sum).unwrap();
            let abort = ends.abort_handle();
            let start = now();
            if ends.rank() == Rank(0) {
                thread::spawn(move || abort.abort()).join().unwrap();
            }
            let error = ends.wait(pending).unwrap_err();
            let expected = matches!(
                (ends.rank(), &error),
                (Rank(0), CollectiveError::Aborted) | (Rank(1), CollectiveError::Connection { .. })
            );
            assert!(expected, "{error}");
            assert!(ends.barrier().is_err());
            now() - start
        });
        assert!(delays.iter().all(|delay| *delay < Duration::from_secs(1)), "{delays:?}");
    }
}

#[test]
fn dropping_a_communicator_with_pending_operations_ends_at_once() {
    in_world(2, |mut ends| {
        if ends.rank() == Rank(0) {
            let mut buffer = Permanent::new(contribution(0, 1_000_000));
            let abort = ends.abort_handle();
            drop(ends.start_all_reduce(buffer.region(), Reduction::Sum).unwrap());
            drop(ends);
            assert!(abort.is_aborted());
        } else {
            assert!(ends.barrier().is_err());
        }
    });
}

#[test]
fn the_same_listeners_form_one_world_after_another() {
    let (listeners, spec) = listeners(3);
    for generation in 1..4 {
        thread::scope(|scope| {
            for (rank, listener) in (0..).map(Rank).zip(&listeners) {
                let spec = WorldSpec { generation, rank, ..spec.clone() };
                scope.spawn(move || {
                    let mut ends = listener.connect(&spec, &AbortHandle::new()).unwrap();
                    ends[0].barrier().unwrap();
                });
            }
        });
    }
}

#[test]
fn a_rank_that_is_ahead_waits_for_the_others_to_reach_its_generation() {
    let (listeners, spec) = listeners(2);
    let ahead = WorldSpec { rank: Rank(1), generation: 2, ..spec.clone() };
    thread::scope(|scope| {
        let second = scope.spawn(|| listeners[1].connect(&ahead, &AbortHandle::new()));
        // Rank 0 still tries the old generation until its deadline, refuses rank 1 there, and
        // finds it in the new one.
        let short = WorldSpec { connect_deadline: Duration::from_millis(200), ..spec.clone() };
        let error = listeners[0].connect(&short, &AbortHandle::new()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("rank 1 of generation 2: another generation"), "{text}");
        let current = WorldSpec { generation: 2, ..spec.clone() };
        listeners[0].connect(&current, &AbortHandle::new()).unwrap();
        second.join().unwrap().unwrap();
    });
}

/// How rank 1 fails to join rank 0's world when `tweak` changes its description.
fn refused(tweak: impl Fn(&mut WorldSpec)) -> (CollectiveError, Result<(), CollectiveError>) {
    let (listeners, spec) = listeners(2);
    let mut other = WorldSpec { rank: Rank(1), ..spec.clone() };
    tweak(&mut other);
    let abort = AbortHandle::new();
    thread::scope(|scope| {
        let first = scope.spawn(|| listeners[0].connect(&spec, &abort).map(drop));
        let error = listeners[1].connect(&other, &AbortHandle::new()).unwrap_err();
        abort.abort();
        (error, first.join().unwrap())
    })
}

#[test]
fn a_rank_of_another_run_generation_or_secret_is_refused_with_the_reason() {
    type Tweak = fn(&mut WorldSpec);
    let cases: [(Tweak, Refusal, Recovery); 4] = [
        (|spec| spec.run_id = "other".into(), Refusal::Run, Recovery::Abort),
        (|spec| spec.generation = 0, Refusal::Generation { theirs: 1 }, Recovery::Rejoin),
        (|spec| spec.secret = [8; 32].into(), Refusal::Secret, Recovery::Abort),
        (|spec| spec.channels = 2, Refusal::Place, Recovery::Abort),
    ];
    for (tweak, reason, recovery) in cases {
        let (error, waiting) = refused(tweak);
        let CollectiveError::Refused { peer, refusal, .. } = &error else { panic!("{error}") };
        assert_eq!((*peer, *refusal), (Rank(0), reason));
        assert_eq!(error.recovery(), recovery);
        assert!(matches!(waiting, Err(CollectiveError::Aborted)), "undisturbed until aborted");
    }
}

#[test]
fn strangers_do_not_disturb_a_forming_world() {
    let (listeners, spec) = listeners(2);
    let address = listeners[0].local_addr();
    let silent = TcpStream::connect(address).unwrap();
    let mut garbage = TcpStream::connect(address).unwrap();
    garbage.write_all(&[b'x'; 4096]).unwrap();
    let forged = forged_proof(address, &spec);
    thread::scope(|scope| {
        for (rank, listener) in (0..).map(Rank).zip(&listeners) {
            let spec = WorldSpec { rank, ..spec.clone() };
            scope.spawn(move || {
                let mut ends = listener.connect(&spec, &AbortHandle::new()).unwrap();
                ends[0].barrier().unwrap();
            });
        }
    });
    drop((silent, forged));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_world_forms_whatever_bytes_strangers_send(
        strangers in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..400)), 1..6,
        ),
    ) {
        let (listeners, spec) = listeners(2);
        let address = listeners[0].local_addr();
        let hello = handshake::Hello::new(&WorldSpec { rank: Rank(1), ..spec.clone() }, Rank(0), 0, [1; 32]);
        let strangers: Vec<_> = strangers
            .into_iter()
            .map(|(greets, bytes)| {
                let mut stream = TcpStream::connect(address).unwrap();
                if greets {
                    stream.write_all(&hello.encode()).unwrap();
                }
                stream.write_all(&bytes).unwrap();
                stream
            })
            .collect();
        thread::scope(|scope| {
            for (rank, listener) in (0..).map(Rank).zip(&listeners) {
                let spec = WorldSpec { rank, ..spec.clone() };
                scope.spawn(move || {
                    let mut ends = listener.connect(&spec, &AbortHandle::new()).unwrap();
                    ends[0].barrier().unwrap();
                });
            }
        });
        drop(strangers);
    }

    #[test]
    fn a_dialler_ends_with_an_error_whatever_an_acceptor_answers(
        answer in prop::collection::vec(any::<u8>(), 0..400), greets in any::<bool>(),
    ) {
        let stranger = std::net::TcpListener::bind(LOOPBACK).unwrap();
        let (listeners, mut spec) = listeners(2);
        spec.peers[0] = stranger.local_addr().unwrap();
        let spec = WorldSpec {
            rank: Rank(1),
            connect_deadline: Duration::from_millis(100),
            ..spec
        };
        let answering = thread::spawn(move || {
            let (mut stream, _) = stranger.accept().unwrap();
            let welcome = [&[0][..], &[0; 8]].concat();
            let answer = if greets { [&welcome, &answer[..]].concat() } else { answer };
            // It may have hung up.
            stream.write_all(&answer).ok();
        });
        let refused = listeners[1].connect(&spec, &AbortHandle::new());
        prop_assert!(refused.is_err());
        answering.join().unwrap();
    }
}

/// Says a good hello, and sends a made-up proof without waiting for the challenge.
fn forged_proof(address: SocketAddr, spec: &WorldSpec) -> TcpStream {
    let spec = WorldSpec { rank: Rank(1), ..spec.clone() };
    let hello = handshake::Hello::new(&spec, Rank(0), 0, [1; 32]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&hello.encode()).unwrap();
    stream.write_all(&[3; handshake::PROOF_LEN]).unwrap();
    stream
}

#[test]
fn a_world_that_never_completes_says_who_is_missing_and_what_knocked() {
    let (listeners, spec) = listeners(2);
    let mut forged = forged_proof(listeners[0].local_addr(), &spec);
    let mut garbage = TcpStream::connect(listeners[0].local_addr()).unwrap();
    garbage.write_all(&[b'x'; handshake::HELLO_LEN]).unwrap();
    let short = WorldSpec { connect_deadline: Duration::from_millis(300), ..spec };
    let error = listeners[0].connect(&short, &AbortHandle::new()).unwrap_err();
    let text = error.to_string();
    for part in ["with rank 1;", "rank 1 of generation 1: wrong secret", "not a worker's greeting"]
    {
        assert!(text.contains(part), "{text}");
    }
    let mut answer = Vec::new();
    forged.read_to_end(&mut answer).ok();
    assert_eq!(answer.len(), handshake::CHALLENGE_LEN + handshake::VERDICT_LEN);
    let verdict = answer.last_chunk().unwrap();
    assert_eq!(handshake::decode_verdict(verdict), Some(Err(Refusal::Secret)));
}

#[test]
fn a_peer_that_is_not_there_is_named_with_the_reason() {
    let (mut listeners, spec) = listeners(2);
    let alone = WorldSpec { rank: Rank(1), connect_deadline: Duration::from_millis(100), ..spec };
    let listener = listeners.pop().unwrap();
    drop(listeners);
    let text = listener.connect(&alone, &AbortHandle::new()).unwrap_err().to_string();
    assert!(text.contains("dialling rank 0 at 127.0.0.1:"), "{text}");
}

#[test]
fn forming_can_be_aborted() {
    let (listeners, spec) = listeners(2);
    let abort = AbortHandle::new();
    thread::scope(|scope| {
        let forming = scope.spawn(|| listeners[0].connect(&spec, &abort));
        abort.abort();
        assert!(matches!(forming.join().unwrap(), Err(CollectiveError::Aborted)));
    });
}

#[test]
fn a_description_that_contradicts_itself_is_refused_in_words() {
    let (listeners, spec) = listeners(1);
    let refused =
        |spec: &WorldSpec| listeners[0].connect(spec, &AbortHandle::new()).unwrap_err().to_string();
    assert!(
        refused(&WorldSpec { rank: Rank(1), ..spec.clone() }).contains("rank 1 in a world of 1")
    );
    assert!(refused(&WorldSpec { peers: vec![], ..spec.clone() }).contains("0 ranks"));
    assert!(refused(&WorldSpec { channels: 0, ..spec }).contains("0 channels"));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = HostListener::bind(LOOPBACK.parse().unwrap()).unwrap();
    let error = HostListener::bind(taken.local_addr()).unwrap_err();
    assert!(error.to_string().contains(&taken.local_addr().to_string()), "{error}");
}
