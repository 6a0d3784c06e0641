//! What a rank does in a test.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lockstep_collective::{
    AbortHandle, Collective, CollectiveError, Element, NcclCollective, Rank, Recovery, Reduction,
};

use crate::buffer::Buffer;
use crate::everything::everything;
use crate::{Failed, Seat, late, say};

pub(crate) fn play(scenario: &str, seat: &Seat) -> Result<(), Failed> {
    match scenario {
        "load" => Ok(()),
        "everything" => compare(seat),
        "work" => work(&mut form(seat)?).map_err(Failed::from),
        "recover" => recover(seat),
        "both" => both(seat),
        "reuse" => reuse(seat),
        "on-a-gpu" => on_a_gpu(seat),
        "abort" => abort(seat),
        "abort-forming" => abort_forming(seat),
        "diverge" => diverge(seat),
        "leave-early" => leave_early(seat),
        "too-much" => too_much(seat),
        "in-order" => in_order(seat),
        "after-the-null-stream" => after_the_null_stream(seat),
        other => panic!("no scenario '{other}'"),
    }
}

fn form(seat: &Seat) -> Result<NcclCollective, Failed> {
    Ok(seat.form(1, seat.id()?, &AbortHandle::new())?)
}

fn compare(seat: &Seat) -> Result<(), Failed> {
    let bits = everything(&mut form(seat)?)?;
    let mut hasher = DefaultHasher::new();
    bits.hash(&mut hasher);
    say(format_args!("result {} bytes, {:016x}", bits.len(), hasher.finish()));
    Ok(())
}

/// Ten rounds of a small and a large reduction: 20 calls of NCCL, the small ones odd, the large ones
/// even.
fn work(ends: &mut dyn Collective) -> Result<(), CollectiveError> {
    let expected = f64::from(ends.world() * (ends.world() + 1) / 2);
    let mine = f64::from(ends.rank().0 + 1);
    for _ in 0..10 {
        let mut small = [mine];
        ends.all_reduce((&mut small[..]).into(), Reduction::Sum)?;
        assert_eq!(small[0].to_bits(), expected.to_bits());
        let mut large = Buffer::new(Element::F64, std::iter::repeat_n(mine, 100_000));
        let pending = ends.start_all_reduce(large.region(), Reduction::Sum)?;
        ends.wait(pending)?;
        assert!(large.bytes().as_chunks().0.iter().all(|x| *x == expected.to_le_bytes()));
    }
    Ok(())
}

/// A world of two communicators, as trainers have it; where it fails, the next one.
fn recover(seat: &Seat) -> Result<(), Failed> {
    for generation in 1..4 {
        let ids = [seat.id()?, seat.id()?];
        let abort = AbortHandle::new();
        let worked = ids
            .map(|id| seat.form(generation, id, &abort))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .and_then(|mut both| both.iter_mut().try_for_each(|ends| work(ends)));
        match worked {
            Ok(()) => {
                say(format_args!("result worked in generation {generation}"));
                return Ok(());
            }
            Err(error) if error.recovery() == Recovery::Rejoin => {
                say(format_args!("result generation {generation}: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    panic!("no generation worked")
}

/// Both communicators of a world have an operation under way when the first one fails.
fn both(seat: &Seat) -> Result<(), Failed> {
    let abort = AbortHandle::new();
    let [first, second] = [seat.id()?, seat.id()?];
    let mut buffer = Buffer::new(Element::F32, (0..1000).map(f64::from));
    let mut world = [seat.form(1, first, &abort)?, seat.form(1, second, &abort)?];
    drop(world[1].start_all_reduce(buffer.region(), Reduction::Sum)?);
    Ok(world[0].barrier()?)
}

/// The same id for a second communicator.
fn reuse(seat: &Seat) -> Result<(), Failed> {
    let id = seat.id()?;
    for generation in 1..3 {
        work(&mut seat.form(generation, id.clone(), &AbortHandle::new())?)?;
    }
    Ok(())
}

fn on_a_gpu(seat: &Seat) -> Result<(), Failed> {
    let spec = lockstep_collective::NcclSpec {
        rank: seat.rank,
        world: seat.world,
        generation: 1,
        id: seat.id()?,
        device: Some(0),
        deadline: seat.deadline,
    };
    NcclCollective::form(&seat.nccl, spec, AbortHandle::new())?;
    Ok(())
}

/// Another thread throws the switch while an operation hangs; its region is free afterwards, and every
/// later call fails alike.
fn abort(seat: &Seat) -> Result<(), Failed> {
    let mut ends = form(seat)?;
    ends.barrier()?;
    let mut buffer = Buffer::new(Element::F32, (0..1000).map(f64::from));
    let pending = ends.start_all_reduce(buffer.region(), Reduction::Sum)?;
    let thrown = throw_soon(ends.abort_handle());
    let error = ends.wait(pending).expect_err("one rank hangs");
    let at = thrown.join().expect("it only throws a switch");
    say(format_args!("result {}", at.elapsed().as_millis()));
    buffer.bytes().fill(0);
    let again = ends.barrier().expect_err("the first failure is final");
    assert_eq!(error.to_string(), again.to_string());
    Err(error.into())
}

fn abort_forming(seat: &Seat) -> Result<(), Failed> {
    let abort = AbortHandle::new();
    let id = seat.id()?;
    let thrown = throw_soon(abort.clone());
    let formed = seat.form(1, id, &abort);
    let at = thrown.join().expect("it only throws a switch");
    say(format_args!("result {}", at.elapsed().as_millis()));
    formed.map(drop).map_err(Failed::from)
}

/// Throws the switch from another thread, and tells when.
#[expect(clippy::disallowed_methods, reason = "how long an abort takes is what is measured")]
fn throw_soon(switch: AbortHandle) -> JoinHandle<Instant> {
    thread::spawn(move || {
        thread::park_timeout(Duration::from_millis(50));
        let now = Instant::now();
        switch.abort();
        now
    })
}

fn diverge(seat: &Seat) -> Result<(), Failed> {
    let mut ends = form(seat)?;
    ends.barrier()?;
    let mut values = vec![1.0_f32; 10 + seat.rank.0 as usize];
    Ok(ends.all_reduce((&mut values[..]).into(), Reduction::Sum)?)
}

/// Rank 0 drops the communicator with an operation pending.
fn leave_early(seat: &Seat) -> Result<(), Failed> {
    let mut ends = form(seat)?;
    ends.barrier()?;
    if seat.rank != Rank(0) {
        return Ok(ends.barrier()?);
    }
    let switch = ends.abort_handle();
    let mut buffer = Buffer::new(Element::F32, (0..1000).map(f64::from));
    drop(ends.start_all_reduce(buffer.region(), Reduction::Sum)?);
    drop(ends);
    assert!(switch.is_aborted());
    Ok(())
}

fn too_much(seat: &Seat) -> Result<(), Failed> {
    let mut ends = form(seat)?;
    let mine =
        vec![0; if seat.rank == Rank(1) { lockstep_collective::MAX_GATHERED + 1 } else { 3 }];
    ends.all_gather(&mine)?;
    Ok(())
}

/// The null stream writes behind a slow operation, and its next one must see that: nobody waits in between. More of them
/// follow than the host runs ahead.
fn in_order(seat: &Seat) -> Result<(), Failed> {
    let mut ends = form(seat)?;
    let mut buffer = Buffer::new(Element::F32, std::iter::once(0.0));
    let mut pending = None;
    for _ in 0..8 {
        late::write_one(&mut buffer);
        pending = Some(ends.all_reduce_in_order(buffer.region(), Reduction::Sum)?);
    }
    ends.wait(pending.expect("eight were started"))?;
    let expected =
        Buffer::new(Element::F32, std::iter::once(f64::from(seat.world))).bytes().to_vec();
    assert_eq!(buffer.bytes(), expected);
    Ok(())
}

/// The null stream is still writing the numbers when they are to be reduced, as libtorch does. The
/// thread is not the one that formed the communicator, so it has no CUDA context yet.
fn after_the_null_stream(seat: &Seat) -> Result<(), Failed> {
    let mut ends = form(seat)?;
    let mut buffer = Buffer::new(Element::F32, std::iter::once(0.0));
    late::write_one(&mut buffer);
    let region = buffer.region();
    let reduced = thread::spawn(move || {
        let pending = ends.start_all_reduce(region, Reduction::Sum)?;
        ends.wait(pending)
    });
    reduced.join().expect("it reduces")?;
    let expected =
        Buffer::new(Element::F32, std::iter::once(f64::from(seat.world))).bytes().to_vec();
    assert_eq!(buffer.bytes(), expected);
    Ok(())
}
