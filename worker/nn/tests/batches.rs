//! One global batch, however it is cut: into micro-batches, over ranks, and into groups of batch norm.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use std::ops::Range;
use std::thread;
use std::time::Duration;

use lockstep_collective::{AbortHandle, HostListener, Rank, WorldSpec};
use lockstep_nn::{
    BlockKind, Byol, Communicators, ModelSpec, Optimizer, Outcome, Rates, Stem, Views, host, step,
};
use tch::Kind;

mod support;

use support::{SIDE, alone, spec};

const LANES: u32 = 6;
/// Images of a lane.
const SLOTS: u32 = 4;
const WHOLE: Range<u32> = 0..SLOTS;
const HALVES: [Range<u32>; 2] = [0..SLOTS / 2, SLOTS / 2..SLOTS];

/// A step of `slots` images of every lane, in so many micro-batches.
fn spec_of(slots: u32, accumulate: u32) -> ModelSpec {
    let spec = spec(BlockKind::Basic, Stem::Small);
    ModelSpec { global_batch: LANES * slots, lanes: LANES, accumulate, ..spec }
}

/// Numbers of the images in some slots of some lanes.
fn images(lanes: Range<u32>, slots: Range<u32>) -> Vec<u32> {
    lanes.flat_map(|lane| slots.clone().map(move |slot| lane * SLOTS + slot)).collect()
}

fn pixels(images: &[u32], seed: f32) -> Vec<f32> {
    let values = SIDE * SIDE * 3;
    let numbers = images.iter().flat_map(|image| image * values..(image + 1) * values);
    numbers.map(|i| (f32::from(u16::try_from(i).unwrap()) * 12.9898 + seed).sin()).collect()
}

fn views(spec: &ModelSpec, lanes: Range<u32>, slots: Range<u32>) -> Views {
    let images = images(lanes, slots);
    let labels: Vec<u32> = images.iter().map(|image| image % 3).collect();
    Views::new([&pixels(&images, 0.0), &pixels(&images, 5.0)], &labels, SIDE, spec)
}

fn flat(model: &Byol, name: &str) -> Vec<f64> {
    let state = model.state();
    host::<f64>(state.iter().find(|(found, _)| *found == name).unwrap().1).to_vec()
}

/// A model of another seed that takes over the state, as from a checkpoint.
fn resumed(spec: &ModelSpec, model: &Byol) -> Byol {
    let mut next = Byol::new(spec.clone(), 4);
    for ((_, to), (_, from)) in next.state_mut().into_iter().zip(model.state()) {
        to.copy_(from);
    }
    next
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64, what: &str) {
    assert_eq!(a.len(), b.len());
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() < tolerance, "{what}, element {index}: {a} against {b}");
    }
}

/// One step of a fresh model with plain SGD at η = 1, which moves θ by −gradient; and its loss.
fn gradient(spec: &ModelSpec, slots: Range<u32>) -> (Vec<f64>, f64) {
    let mut model = Byol::new(spec.clone(), 3);
    let before = flat(&model, "online");
    let rates = Rates { learning_rate: 1.0, decay: 1.0 };
    let views = views(spec, 0..LANES, slots);
    let outcome = step(&mut model, &views, rates, false, &mut alone()).unwrap();
    let Outcome::Applied(report) = outcome else { panic!("{outcome:?}") };
    let moved = before.iter().zip(flat(&model, "online")).map(|(before, after)| before - after);
    (moved.collect(), report.loss)
}

#[test]
fn gradients_and_losses_of_micro_batches_add_up_to_those_of_the_step() {
    let (whole, loss) = gradient(&spec_of(SLOTS, 2), WHOLE);
    let halves = HALVES.map(|slots| gradient(&spec_of(SLOTS / 2, 1), slots));
    // Each half is divided by its own N, half of the step's.
    let sum: Vec<f64> = halves[0].0.iter().zip(&halves[1].0).map(|(a, b)| (a + b) / 2.0).collect();
    assert_close(&whole, &sum, 1e-12, "gradient");
    assert!((loss - (halves[0].1 + halves[1].1) / 2.0).abs() < 1e-12, "{loss}");
    let (at_once, _) = gradient(&spec_of(SLOTS, 1), WHOLE);
    let differs = at_once.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 1e-6);
    assert!(differs, "batch norm must see one micro-batch at a time");
}

#[test]
fn running_averages_move_once_for_every_micro_batch() {
    let still = Rates { learning_rate: 0.0, decay: 1.0 };
    let after = |steps: Vec<(ModelSpec, Range<u32>)>| {
        let mut model = Byol::new(spec_of(SLOTS, 1), 3);
        for (spec, slots) in steps {
            let mut next = resumed(&spec, &model);
            let views = views(&spec, 0..LANES, slots);
            step(&mut next, &views, still, false, &mut alone()).unwrap();
            model = next;
        }
        [flat(&model, "online_running"), flat(&model, "target_running")].concat()
    };
    let accumulated = after(vec![(spec_of(SLOTS, 2), WHOLE)]);
    let apart = after(HALVES.map(|slots| (spec_of(SLOTS / 2, 1), slots)).into());
    assert_close(&accumulated, &apart, 1e-13, "running averages");
}

#[test]
fn the_target_moves_once_however_many_micro_batches_there_are() {
    let spec = spec_of(SLOTS, 4);
    let mut model = Byol::new(spec.clone(), 3);
    let old = flat(&model, "target");
    let rates = Rates { learning_rate: 0.3, decay: 0.9 };
    step(&mut model, &views(&spec, 0..LANES, WHOLE), rates, false, &mut alone()).unwrap();
    let online = flat(&model, "online");
    let want: Vec<f64> =
        old.iter().zip(&online).map(|(old, online)| 0.9 * old + 0.1 * online).collect();
    assert_close(&flat(&model, "target"), &want, 1e-12, "target");
}

#[test]
fn one_pixel_that_is_no_number_in_any_micro_batch_leaves_no_trace() {
    let spec = spec_of(SLOTS, 2);
    let rates = Rates { learning_rate: 0.1, decay: 0.9 };
    let images = images(0..LANES, WHOLE);
    let labels = vec![0; images.len()];
    for image in [0, 3] {
        let mut broken = pixels(&images, 0.0);
        broken[image * (SIDE * SIDE * 3) as usize + 17] = f32::NAN;
        let broken = Views::new([&broken, &pixels(&images, 5.0)], &labels, SIDE, &spec);
        let mut model = Byol::new(spec.clone(), 3);
        let before = model.digest(0, 0);
        let outcome = step(&mut model, &broken, rates, false, &mut alone()).unwrap();
        assert!(matches!(outcome, Outcome::Skipped(_)), "image {image}: {outcome:?}");
        assert_eq!(model.digest(0, 0), before, "image {image}");

        let mut untouched = Byol::new(spec.clone(), 3);
        for model in [&mut model, &mut untouched] {
            let sound = views(&spec, 0..LANES, WHOLE);
            step(model, &sound, rates, false, &mut alone()).unwrap();
        }
        assert_eq!(model.digest(1, 2), untouched.digest(1, 2), "image {image}");
    }
}

/// All state after three steps of a rank that holds `lanes`.
fn train(spec: &ModelSpec, lanes: &Range<u32>, comm: &mut Communicators) -> Vec<Vec<f64>> {
    let mut model = Byol::new(spec.clone(), 3);
    let views = views(spec, lanes.clone(), WHOLE);
    let rates = Rates { learning_rate: 0.05, decay: 0.9 };
    for _ in 0..3 {
        let outcome = step(&mut model, &views, rates, false, comm).unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }
    model.state().map(|(_, flat)| host::<f64>(flat).to_vec()).into()
}

/// What `body` returns on every rank of a world whose ranks, threads, hold these lanes.
fn in_world<R: Send>(
    dealt: &[Range<u32>],
    body: impl Fn(&Range<u32>, &mut Communicators) -> R + Copy + Send,
) -> Vec<R> {
    let any_port = "127.0.0.1:0".parse().unwrap();
    let listeners: Vec<_> = dealt.iter().map(|_| HostListener::bind(any_port).unwrap()).collect();
    let peers: Vec<_> = listeners.iter().map(HostListener::local_addr).collect();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..)
            .zip(&listeners)
            .zip(dealt)
            .map(|((rank, listener), lanes)| {
                let world = WorldSpec {
                    run_id: "test".into(),
                    generation: 1,
                    rank: Rank(rank),
                    peers: peers.clone(),
                    secret: [7; 32].into(),
                    connect_deadline: Duration::from_mins(1),
                    op_deadline: Duration::from_mins(1),
                    channels: 2,
                };
                scope.spawn(move || {
                    let mut channels = listener.connect(&world, &AbortHandle::new()).unwrap();
                    let gradients = Box::new(channels.pop().unwrap());
                    let statistics = Box::new(channels.pop().unwrap());
                    body(lanes, &mut Communicators { statistics, gradients })
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Equal on all ranks to the bit, and to rounding what a rank that holds all lanes has.
fn assert_the_world_does_not_matter(spec: &ModelSpec, worlds: &[&[Range<u32>]]) {
    let alone = train(spec, &(0..LANES), &mut alone());
    for dealt in worlds {
        let ranks = in_world(dealt, |lanes, comm| train(spec, lanes, comm));
        for state in &ranks {
            assert_eq!(state, &ranks[0], "ranks differ in {dealt:?}");
        }
        for (part, alone) in ranks[0].iter().zip(&alone) {
            assert_close(part, alone, 1e-9, &format!("{dealt:?}"));
        }
    }
}

#[test]
fn micro_batches_do_not_depend_on_the_world() {
    let optimizer = Optimizer { trust: None, momentum: 0.9, nesterov: true, weight_decay: 1e-4 };
    let spec = ModelSpec { optimizer, ..spec_of(SLOTS, 2) };
    assert_the_world_does_not_matter(&spec, &[&[0..3, 3..6], &[0..4, 4..6], &[0..1, 1..2, 2..6]]);
}

#[test]
fn groups_of_batch_norm_do_not_depend_on_the_world() {
    let optimizer = Optimizer { trust: None, momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
    for accumulate in [1, 2] {
        let spec = ModelSpec { optimizer, bn_group: 2, ..spec_of(SLOTS, accumulate) };
        assert_the_world_does_not_matter(
            &spec,
            &[&[0..2, 2..6], &[0..4, 4..6], &[0..2, 2..4, 4..6]],
        );
    }
}

#[test]
fn one_group_of_all_lanes_is_the_global_batch() {
    let state = |bn_group| {
        let spec = ModelSpec { bn_group, ..spec_of(SLOTS, 1) };
        train(&spec, &(0..LANES), &mut alone())
    };
    assert_eq!(state(LANES), state(0));
}

#[test]
fn each_group_is_normalized_as_if_it_were_alone() {
    let still = Rates { learning_rate: 0.0, decay: 1.0 };
    let run = |spec: &ModelSpec, lanes: Range<u32>| {
        let mut model = Byol::new(spec.clone(), 3);
        let outcome = step(&mut model, &views(spec, lanes, WHOLE), still, false, &mut alone());
        let Outcome::Applied(report) = outcome.unwrap() else { panic!("it is finite") };
        (report.loss, flat(&model, "online_running"))
    };
    let (loss, running) = run(&ModelSpec { bn_group: 3, ..spec_of(SLOTS, 1) }, 0..LANES);
    let half = ModelSpec { global_batch: 3 * SLOTS, lanes: 3, ..spec_of(SLOTS, 1) };
    let (first, second) = (run(&half, 0..3), run(&half, 3..6));
    assert!((loss - (first.0 + second.0) / 2.0).abs() < 1e-12, "{loss}");
    let mean: Vec<f64> = first.1.iter().zip(&second.1).map(|(a, b)| (a + b) / 2.0).collect();
    assert_close(&running, &mean, 1e-13, "running averages");
}

/// Five global batches, the second with a NaN in lane 0; with `cut`, the third is followed by a restart.
fn digest_after(spec: &ModelSpec, lanes: &Range<u32>, comm: &mut Communicators, cut: bool) -> u64 {
    let mut model = Byol::new(spec.clone(), 3);
    let numbers = images(lanes.clone(), WHOLE);
    for batch in 0..5_u8 {
        let mut first = pixels(&numbers, f32::from(batch));
        if batch == 1 && lanes.contains(&0) {
            first[17] = f32::NAN;
        }
        let labels = vec![0; numbers.len()];
        let views = Views::new([&first, &pixels(&numbers, 5.0)], &labels, SIDE, spec);
        let rates = Rates { learning_rate: 0.05, decay: 0.9 };
        let outcome = step(&mut model, &views, rates, false, comm).unwrap();
        assert_eq!(matches!(outcome, Outcome::Skipped(_)), batch == 1, "{outcome:?}");
        if cut && batch == 2 {
            model = resumed(spec, &model);
        }
    }
    model.digest(4, 5)
}

#[test]
fn a_restart_behind_a_skipped_step_changes_no_bit_of_any_type_or_world() {
    let optimizer = Optimizer { trust: Some(1e-3), momentum: 0.9, ..spec_of(1, 1).optimizer };
    for compute in [Kind::Float, Kind::BFloat16] {
        let spec = ModelSpec { optimizer, kind: Kind::Float, compute, ..spec_of(SLOTS, 2) };
        let (whole, parts) = (0..LANES, [0..4, 4..LANES]);
        for dealt in [std::slice::from_ref(&whole), &parts] {
            let run = |cut| in_world(dealt, |lanes, comm| digest_after(&spec, lanes, comm, cut));
            let whole = run(false);
            assert!(whole.iter().all(|digest| *digest == whole[0]), "ranks differ: {compute:?}");
            assert_eq!(run(true), whole, "{compute:?} {dealt:?}");
        }
    }
}
