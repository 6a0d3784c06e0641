//! Steps on a GPU against steps on the CPU: `make test-gpu`.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use lockstep_nn::{
    BlockKind, Byol, Communicators, ModelSpec, Optimizer, Outcome, Rates, Stem, Views, host, step,
};
use tch::{Device, Kind};

mod support;

use support::{BATCH, alone, spec};

/// Larger than the other tests' images, so that the last batch norm sees more than one pixel of each.
const SIDE: u32 = 8 * support::SIDE;
const GPU: Device = Device::Cuda(0);

fn small_spec(kind: Kind, compute: Kind, device: Device) -> ModelSpec {
    let optimizer =
        Optimizer { trust: Some(1e-2), momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
    let spec = spec(BlockKind::Bottleneck, Stem::Imagenet);
    ModelSpec { kind, compute, device, optimizer, ..spec }
}

/// Losses of three steps, and the state behind them.
fn train(spec: &ModelSpec, comm: &mut Communicators) -> (Vec<f64>, Vec<Vec<f64>>) {
    let pixels = |seed: f64| -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "any values will do")]
        (0..BATCH * SIDE * SIDE * 3).map(|i| (f64::from(i) * 12.9898 + seed).sin() as f32).collect()
    };
    let views = Views::new([&pixels(0.0), &pixels(5.0)], &[0, 1, 2, 0, 1, 2], SIDE, spec);
    let mut model = Byol::new(spec.clone(), 3);
    let rates = Rates { learning_rate: 0.1, decay: 0.9 };
    let losses = (0..3).map(|_| match step(&mut model, &views, rates, false, comm).unwrap() {
        Outcome::Applied(report) => report.loss,
        Outcome::Skipped(_) => panic!("a finite step was skipped"),
    });
    let losses = losses.collect();
    let numbers = |flat: &tch::Tensor| {
        host::<f64>(&flat.to_device(Device::Cpu).to_kind(Kind::Double)).to_vec()
    };
    (losses, model.state().map(|(_, flat)| numbers(flat)).into())
}

/// Largest difference, relative to the largest value.
fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    ours.iter().zip(theirs).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// In double precision there is no other source of difference than the order of additions.
#[test]
#[ignore = "needs a GPU: make test-gpu"]
fn in_double_precision_steps_on_a_gpu_are_those_on_the_cpu() {
    let of = |device| train(&small_spec(Kind::Double, Kind::Double, device), &mut alone());
    let ((losses, state), (gpu_losses, gpu_state)) = (of(Device::Cpu), of(GPU));
    assert!(difference(&gpu_losses, &losses) < 1e-9, "{gpu_losses:?} against {losses:?}");
    for (index, (ours, theirs)) in gpu_state.iter().zip(&state).enumerate() {
        let error = difference(ours, theirs);
        assert!(error < 1e-8, "buffer {index} differs by {error:e}");
    }
}

/// The state behind three steps is at most four times as far from that of exact steps as the CPU's: what ATen's kernels
/// are held to on the CPU too. Rounding grows from step to step, so the two may not be compared with each other.
fn is_as_near_to_exact_steps_as_the_cpu(compute: Kind) {
    let of = |kind, compute, device| train(&small_spec(kind, compute, device), &mut alone()).1;
    let exact = of(Kind::Double, Kind::Double, Device::Cpu);
    let [cpu, gpu] = [Device::Cpu, GPU].map(|device| of(Kind::Float, compute, device));
    for (index, exact) in exact.iter().enumerate() {
        let [cpu, gpu] = [&cpu, &gpu].map(|state| difference(&state[index], exact));
        assert!(gpu < 4.0 * cpu, "buffer {index}: off by {gpu:e}, the CPU by {cpu:e}");
    }
}

/// `make test-gpu` switches TF32 off, so that f32 means f32.
#[test]
#[ignore = "needs a GPU: make test-gpu"]
fn in_single_precision_a_gpu_is_as_near_to_the_exact_step_as_the_cpu() {
    is_as_near_to_exact_steps_as_the_cpu(Kind::Float);
}

#[test]
#[ignore = "needs a GPU: make test-gpu"]
fn in_bf16_a_gpu_is_as_near_to_the_exact_step_as_the_cpu() {
    is_as_near_to_exact_steps_as_the_cpu(Kind::BFloat16);
}

/// Groups hold three images: of a single one the heads' batch norm would leave nothing.
#[test]
#[ignore = "needs a GPU: make test-gpu"]
fn on_a_gpu_recomputed_activations_micro_batches_and_groups_change_nothing() {
    for (lanes, accumulate, bn_group) in [(3, 2, 0), (2, 1, 1)] {
        let of = |device| {
            let small = small_spec(Kind::Double, Kind::Double, device);
            let spec = ModelSpec { lanes, accumulate, bn_group, recompute: true, ..small };
            train(&spec, &mut alone()).0
        };
        let (cpu, gpu) = (of(Device::Cpu), of(GPU));
        assert!(difference(&gpu, &cpu) < 1e-9, "{gpu:?} against {cpu:?}");
        assert!(cpu[1] < cpu[0], "{cpu:?}: nothing is learned");
    }
}
