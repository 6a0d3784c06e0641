//! Whole steps as on a GPU, with host tensors: ATen's kernels, and sums that travel in the permanent buffer.

use lockstep_collective::Solo;
use tch::{Device, Kind};

use crate::kernels::testing::as_on_a_device;
use crate::{
    BlockKind, Byol, Communicators, Init, ModelSpec, Optimizer, Outcome, Padding, Rates, Report,
    ResNetSpec, Stem, TargetInit, Views, host, step,
};

const SIDE: u32 = 64;
const BATCH: u32 = 8;

fn spec(kind: Kind) -> ModelSpec {
    ModelSpec {
        encoder: ResNetSpec {
            block: BlockKind::Bottleneck,
            stages: [1, 1, 1, 1],
            width: 0.125,
            stem: Stem::Imagenet,
            padding: Padding::Torchvision,
            last_gamma: 0.5,
        },
        projector_hidden: 12,
        projection_dim: 5,
        predictor_hidden: 7,
        classes: Some(3),
        init: Init::FanIn,
        target_init: TargetInit::Copy,
        bn_eps: 1e-5,
        bn_decay: 0.9,
        bn_group: 0,
        optimizer: Optimizer {
            trust: Some(1e-2),
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-4,
        },
        global_batch: BATCH,
        lanes: BATCH,
        accumulate: 1,
        bucket_elements: 1000,
        kind,
        compute: kind,
        bf16_gradients: false,
        recompute: false,
        device: Device::Cpu,
    }
}

/// Reports of three steps, and the state behind them.
fn train(spec: &ModelSpec) -> (Vec<Report>, Vec<Vec<f64>>) {
    let pixels = |seed: f64| -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "any values will do")]
        (0..BATCH * SIDE * SIDE * 3).map(|i| (f64::from(i) * 12.9898 + seed).sin() as f32).collect()
    };
    let views = Views::new([&pixels(0.0), &pixels(5.0)], &[0, 1, 2, 0, 1, 2, 0, 1], SIDE, spec);
    let mut comm = Communicators {
        statistics: Box::new(Solo::default()),
        gradients: Box::new(Solo::default()),
    };
    let mut model = Byol::new(spec.clone(), 3);
    let rates = Rates { learning_rate: 0.1, decay: 0.9 };
    let reports =
        (0..3).map(|_| match step(&mut model, &views, rates, false, &mut comm).unwrap() {
            Outcome::Applied(report) => report,
            Outcome::Skipped(_) => panic!("a finite step was skipped"),
        });
    let reports = reports.collect();
    let state = model.state().map(|(_, flat)| host::<f64>(&flat.to_kind(Kind::Double)).to_vec());
    (reports, state.into())
}

/// Largest difference, relative to the largest value of the same buffer.
fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    ours.iter().zip(theirs).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs())) / largest
}

fn steps_agree(spec: &ModelSpec, tolerance: f64) {
    let (reports, state) = train(spec);
    let (on_device, device_state) = as_on_a_device(|| train(spec));
    for (ours, theirs) in on_device.iter().zip(&reports) {
        let error = (ours.loss - theirs.loss).abs() / theirs.loss;
        assert!(error < tolerance, "loss {} against {}", ours.loss, theirs.loss);
        assert!((ours.z_std - theirs.z_std).abs() < tolerance, "{ours:?} against {theirs:?}");
        let [ours, theirs] = [ours, theirs].map(|report| report.probe.unwrap());
        assert!((ours.0 - theirs.0).abs() < tolerance, "{ours:?} against {theirs:?}");
        assert_eq!(ours.1.to_bits(), theirs.1.to_bits());
    }
    for (index, (ours, theirs)) in device_state.iter().zip(&state).enumerate() {
        let error = difference(ours, theirs);
        assert!(error < tolerance, "buffer {index} differs by {error:e}");
    }
}

#[test]
fn steps_on_a_device_are_those_on_the_host() {
    steps_agree(&spec(Kind::Double), 1e-9);
}

#[test]
fn so_they_are_with_recomputed_activations_micro_batches_and_groups() {
    let spec = ModelSpec { recompute: true, accumulate: 2, lanes: 4, ..spec(Kind::Double) };
    steps_agree(&spec, 1e-9);
    steps_agree(&ModelSpec { bn_group: 2, ..spec }, 1e-9);
}

#[test]
fn in_single_precision_a_device_is_as_near_to_the_exact_step_as_the_host() {
    let (_, exact) = train(&spec(Kind::Double));
    let (_, host) = train(&spec(Kind::Float));
    let (_, device) = as_on_a_device(|| train(&spec(Kind::Float)));
    for (index, exact) in exact.iter().enumerate() {
        let [host, device] = [&host, &device].map(|state| difference(&state[index], exact));
        assert!(device < 4.0 * host, "buffer {index}: off by {device:e}, the host by {host:e}");
    }
}

/// Three steps must run; only the first loss is compared, since of bf16 numbers ATen gives statistics in bf16 on the CPU (and
/// in f32 on a GPU).
#[test]
fn in_bf16_the_first_loss_on_a_device_is_that_on_the_host_to_two_digits() {
    let spec = ModelSpec { compute: Kind::BFloat16, ..spec(Kind::Float) };
    let (host, _) = train(&spec);
    let (device, _) = as_on_a_device(|| train(&spec));
    let error = (device[0].loss - host[0].loss).abs() / host[0].loss;
    assert!(error < 1e-2, "loss {} against {}", device[0].loss, host[0].loss);
}
