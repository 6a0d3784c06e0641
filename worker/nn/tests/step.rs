//! Whole steps: the backward pass against finite differences, and what applied and skipped steps move.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use lockstep_nn::{
    BlockKind, Byol, ModelSpec, Outcome, Padding, ParamSpec, Rates, ResNetSpec, Stem, TargetInit,
    Views, host, step,
};
use tch::{Kind, Tensor};

mod support;

use support::{BATCH, SIDE, alone, spec};

fn pixels(seed: f32) -> Vec<f32> {
    let count = u16::try_from(BATCH * SIDE * SIDE * 3).unwrap();
    (0..count).map(|i| (f32::from(i) * 12.9898 + seed).sin()).collect()
}

fn views(spec: &ModelSpec) -> Views {
    Views::new([&pixels(0.0), &pixels(5.0)], &[0, 1, 2, 0, 1, 2], SIDE, spec)
}

/// Loss of BYOL and of the probe; the probe's is stopped before the encoder, so they are told apart.
fn losses_of(model: &mut Byol, views: &Views) -> (f64, f64) {
    let still = Rates { learning_rate: 0.0, decay: 1.0 };
    match step(model, views, still, false, &mut alone()).unwrap() {
        Outcome::Applied(report) => (report.loss, report.probe.unwrap().0),
        Outcome::Skipped(_) => panic!("a finite step was skipped"),
    }
}

fn nudge(model: &mut Byol, element: i64, by: f64) {
    for (name, flat) in model.state_mut() {
        if name == "online" {
            let _nudged = flat.get(element).g_add_scalar_(by);
        }
    }
}

/// With plain SGD at η = 1, a step moves θ by −gradient: compare that with the slope of the loss.
fn gradients_match_finite_differences(spec: ModelSpec) {
    let views = views(&spec);
    let mut model = Byol::new(spec.clone(), 3);
    let online = |model: &Byol| host::<f64>(model.state()[0].1).to_vec();
    let before = online(&model);
    step(&mut model, &views, Rates { learning_rate: 1.0, decay: 1.0 }, false, &mut alone())
        .unwrap();
    let after = online(&model);

    let mut model = Byol::new(spec, 3);
    let params = model.layout().params().to_vec();
    for param in &params {
        let pick = param.len() / 2;
        let element = param.offset + pick;
        let signed = i64::try_from(element).unwrap();
        let h = 1e-6;
        nudge(&mut model, signed, h);
        let of = |(byol, probe)| if param.name.starts_with("probe.") { probe } else { byol };
        let above = of(losses_of(&mut model, &views));
        nudge(&mut model, signed, -2.0 * h);
        let below = of(losses_of(&mut model, &views));
        nudge(&mut model, signed, h);
        let (ours, slope) = (before[element] - after[element], (above - below) / (2.0 * h));
        let error = (ours - slope).abs();
        assert!(
            error < 1e-6 + 1e-5 * slope.abs(),
            "{} element {pick}: {ours} against {slope}",
            param.name
        );
    }
}

#[test]
fn every_gradient_of_a_basic_network_with_a_small_stem_matches_finite_differences() {
    gradients_match_finite_differences(spec(BlockKind::Basic, Stem::Small));
}

#[test]
fn every_gradient_of_a_bottleneck_network_with_an_imagenet_stem_matches_finite_differences() {
    gradients_match_finite_differences(spec(BlockKind::Bottleneck, Stem::Imagenet));
}

#[test]
fn every_gradient_with_same_padding_matches_finite_differences() {
    let mut spec = spec(BlockKind::Bottleneck, Stem::Imagenet);
    spec.encoder.padding = Padding::Same;
    gradients_match_finite_differences(spec);
}

#[test]
fn every_gradient_with_groups_of_batch_norm_matches_finite_differences() {
    let spec = ModelSpec { bn_group: 3, ..spec(BlockKind::Basic, Stem::Small) };
    gradients_match_finite_differences(spec);
}

#[test]
fn a_step_that_is_not_finite_moves_nothing() {
    let spec = spec(BlockKind::Basic, Stem::Small);
    let mut model = Byol::new(spec.clone(), 3);
    let before = model.digest(0, 0);
    let mut broken = pixels(0.0);
    broken[17] = f32::NAN;
    let views = Views::new([&broken, &pixels(5.0)], &[0, 1, 2, 0, 1, 2], SIDE, &spec);
    let rates = Rates { learning_rate: 0.1, decay: 0.9 };
    let outcome = step(&mut model, &views, rates, false, &mut alone()).unwrap();
    assert!(matches!(outcome, Outcome::Skipped(_)), "{outcome:?}");
    assert_eq!(model.digest(0, 0), before);
}

#[test]
fn the_target_follows_the_new_online_weights_and_covers_biases() {
    let spec = spec(BlockKind::Basic, Stem::Small);
    let mut model = Byol::new(spec.clone(), 3);
    let flat = |model: &Byol, index: usize| host::<f64>(model.state()[index].1).to_vec();
    let old_target = flat(&model, 1);
    let rates = Rates { learning_rate: 0.3, decay: 0.9 };
    step(&mut model, &views(&spec), rates, false, &mut alone()).unwrap();
    let (online, target) = (flat(&model, 0), flat(&model, 1));
    for (index, target) in target.iter().enumerate() {
        let want = 0.9 * old_target[index] + 0.1 * online[index];
        assert!((target - want).abs() < 1e-12, "element {index}: {target} against {want}");
    }
    let bias = model.layout().params().iter().find(|p| p.name == "projector.0.bias").unwrap();
    assert!(target[bias.offset..bias.offset + bias.len()].iter().any(|&x| x != 0.0));
}

#[test]
fn a_decay_of_one_keeps_a_random_target_and_one_of_zero_makes_it_the_online_network() {
    let flat = |model: &Byol, index: usize| host::<f64>(model.state()[index].1).to_vec();
    let spec =
        ModelSpec { target_init: TargetInit::Independent, ..spec(BlockKind::Basic, Stem::Small) };
    let mut model = Byol::new(spec.clone(), 3);
    let random = flat(&model, 1);
    let weight = &model.layout().params()[0];
    assert_ne!(random[..weight.len()], flat(&model, 0)[..weight.len()]);
    assert_eq!(random, flat(&Byol::new(spec.clone(), 3), 1), "it is drawn from the seed");
    let mut step_with = |decay| {
        let rates = Rates { learning_rate: 0.3, decay };
        step(&mut model, &views(&spec), rates, false, &mut alone()).unwrap();
        (flat(&model, 0), flat(&model, 1))
    };
    assert_eq!(step_with(1.0).1, random);
    let (online, target) = step_with(0.0);
    assert_eq!(target, online[..target.len()]);
}

#[test]
fn the_probe_never_changes_the_encoder() {
    let run = |classes| {
        let spec = ModelSpec { classes, ..spec(BlockKind::Basic, Stem::Small) };
        let mut model = Byol::new(spec.clone(), 3);
        let rates = Rates { learning_rate: 0.3, decay: 0.9 };
        step(&mut model, &views(&spec), rates, false, &mut alone()).unwrap();
        host::<f64>(model.state()[1].1).to_vec()
    };
    assert_eq!(run(Some(3)), run(None));
}

#[test]
fn published_sizes_of_resnet50_and_its_heads_hold() {
    let spec = ModelSpec {
        encoder: ResNetSpec::with_depth(50).unwrap(),
        projector_hidden: 4096,
        projection_dim: 256,
        predictor_hidden: 4096,
        classes: None,
        kind: Kind::Float,
        compute: Kind::Float,
        ..spec(BlockKind::Bottleneck, Stem::Imagenet)
    };
    let model = Byol::new(spec, 0);
    let size = |prefix: &str| -> usize {
        model
            .layout()
            .params()
            .iter()
            .filter(|p| p.name.starts_with(prefix))
            .map(ParamSpec::len)
            .sum()
    };
    assert_eq!(size("encoder."), 23_508_032);
    assert_eq!(size("projector."), 9_449_472);
    assert_eq!(size("predictor."), 2_109_440);
}

#[test]
fn two_models_of_one_seed_are_alike_and_of_two_seeds_are_not() {
    let digest = |seed| Byol::new(spec(BlockKind::Basic, Stem::Small), seed).digest(0, 0);
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn sixteen_bits_move_the_weights_where_thirty_two_do() {
    let moved = |kind, compute| {
        let spec = ModelSpec { kind, compute, ..spec(BlockKind::Basic, Stem::Small) };
        let mut model = Byol::new(spec.clone(), 3);
        let online = |model: &Byol| model.state()[0].1.to_kind(Kind::Double).copy();
        let before = online(&model);
        let rates = Rates { learning_rate: 1.0, decay: 1.0 };
        step(&mut model, &views(&spec), rates, false, &mut alone()).unwrap();
        online(&model) - before
    };
    let [exact, rounded] = [moved(Kind::Double, Kind::Double), moved(Kind::Float, Kind::BFloat16)];
    let length = |x: &Tensor| x.norm().double_value(&[]);
    let cosine = (&exact * &rounded).sum(Kind::Double).double_value(&[])
        / (length(&exact) * length(&rounded));
    // 8 bits a number, in a network of 4 to 32 channels with 6 images in its last batch norms: 0.98.
    assert!(cosine > 0.95, "{cosine}");
}

/// In a world of one nothing else happens to them; the figures of the report keep all bits.
#[test]
fn gradients_that_travel_as_bf16_are_rounded_once_and_the_report_is_not() {
    let step_with = |bf16_gradients| {
        let spec = ModelSpec { bf16_gradients, ..spec(BlockKind::Basic, Stem::Small) };
        let mut model = Byol::new(spec.clone(), 3);
        let rates = Rates { learning_rate: 0.1, decay: 0.9 };
        let outcome = step(&mut model, &views(&spec), rates, false, &mut alone()).unwrap();
        let gradients =
            model.gradients().narrow(0, 0, i64::try_from(model.layout().len()).unwrap());
        (outcome, gradients.copy())
    };
    let ((report, exact), (same, travelled)) = (step_with(false), step_with(true));
    assert_eq!(report, same);
    let rounded = exact.to_kind(Kind::BFloat16).to_kind(Kind::Double);
    assert_eq!(host::<f64>(&travelled), host::<f64>(&rounded));
    assert_ne!(host::<f64>(&travelled), host::<f64>(&exact));
}

#[test]
fn computing_activations_again_changes_no_bit() {
    for (block, stem) in [(BlockKind::Basic, Stem::Small), (BlockKind::Bottleneck, Stem::Imagenet)]
    {
        let digest = |recompute| {
            let mut spec = ModelSpec { recompute, ..spec(block, stem) };
            spec.encoder.stages = [2, 3, 1, 1];
            let mut model = Byol::new(spec.clone(), 3);
            let rates = Rates { learning_rate: 0.3, decay: 0.9 };
            step(&mut model, &views(&spec), rates, false, &mut alone()).unwrap();
            model.digest(1, 1)
        };
        assert_eq!(digest(true), digest(false), "{block:?}, {stem:?}");
    }
}

/// A plain data-parallel step with synchronized batch norm sends about 328: 218 forward, 110 backward.
#[test]
fn a_resnet50_step_sends_one_batch_norm_message_a_layer_each_way() {
    let encoder = ResNetSpec { width: 0.0625, ..ResNetSpec::with_depth(50).unwrap() };
    let spec = ModelSpec { encoder, ..spec(BlockKind::Bottleneck, Stem::Imagenet) };
    let mut model = Byol::new(spec.clone(), 3);
    let mut comm = alone();
    let rates = Rates { learning_rate: 0.3, decay: 0.9 };
    step(&mut model, &views(&spec), rates, false, &mut comm).unwrap();
    assert_eq!(comm.statistics.sequence(), 55 + 55);
    let elements = model.layout().len();
    let buckets = u64::try_from(elements.div_ceil(spec.bucket_elements)).unwrap();
    let sent = comm.gradients.sequence();
    assert!(sent <= buckets + 1, "{sent} messages for {elements} elements");
}
