use super::*;

/// `[B, C, H, W]` channels-last, B = 4 (two groups of two), values around 3.
fn images(seed: f64) -> Tensor {
    let values: Vec<f64> =
        (0..4 * 5 * 5 * 6).map(|i| (f64::from(i) * 0.7 + seed).sin() + 3.0).collect();
    Tensor::from_slice(&values).view([4, 5, 5, 6]).permute([0, 3, 1, 2])
}

fn channel(seed: f64) -> Tensor {
    let values: Vec<f64> = (0..6).map(|i| (f64::from(i) + seed).cos()).collect();
    Tensor::from_slice(&values)
}

fn moments(x: &Tensor, groups: usize, count: f64) -> Moments {
    let sums = sums(x, groups);
    let mean = sums.select(1, 0) / count;
    let variance = sums.select(1, 1) / count - &mean * &mean;
    Moments { mean, inv_std: (variance + 1e-5).sqrt().reciprocal() }
}

fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() < 1e-10 * b.abs().max(1.0), "element {index}: {a} against {b}");
    }
}

fn flat(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.contiguous().contiguous().view([-1])).unwrap()
}

#[test]
fn the_host_loops_agree_with_aten() {
    let (x, g) = (images(0.1), images(1.3) - 3.0);
    assert_close(&flat(&host::sums::<f64>(&x, 2)), &flat(&aten::sums(&x, 2)));
    let moments = moments(&x, 2, 50.0);
    let (gamma, beta, residual) = (channel(0.0), channel(2.0), images(0.6) - 3.5);
    for after in [After::Nothing, After::Relu, After::AddRelu(&residual)] {
        let ours = host::normalize::<f64>(&x, &moments, (&gamma, &beta), after);
        assert_close(&flat(&ours), &flat(&aten::normalize(&x, &moments, (&gamma, &beta), after)));
    }
    for y in [None, Some(&residual)] {
        let (mut ours, mut theirs) = (g.copy(), g.copy());
        let sums = host::gradient_sums::<f64>(&mut ours, y, &x, &moments);
        assert_close(&flat(&sums), &flat(&aten::gradient_sums(&mut theirs, y, &x, &moments)));
        assert_close(&flat(&ours), &flat(&theirs));
        let ours = host::input_gradient::<f64>(&ours, &x, &moments, &gamma, (&sums, 50.0));
        let theirs = aten::input_gradient(&theirs, &x, &moments, &gamma, (&sums, 50.0));
        assert_close(&flat(&ours), &flat(&theirs));
    }
}

#[test]
fn batch_norm_and_its_gradient_are_pytorchs() {
    let x = images(0.1).narrow(0, 0, 2).set_requires_grad(true);
    let (gamma, beta, g) = (channel(0.0), channel(2.0), images(1.3).narrow(0, 0, 2) - 3.0);
    let none = None::<&Tensor>;
    let want = x.batch_norm(Some(&gamma), Some(&beta), none, none, true, 0.1, 1e-5, false);
    (&want * &g).sum(Kind::Double).backward();

    let plain = rows(&x.detach());
    let moments = moments(&plain, 1, 50.0);
    let y = normalize(&plain, &moments, (&gamma, &beta), After::Nothing);
    assert_close(&flat(&y), &flat(&want.detach()));
    let mut g = rows(&g);
    let sums = gradient_sums(&mut g, None, &plain, &moments);
    let dx = input_gradient(&g, &plain, &moments, &gamma, (&sums, 50.0));
    assert_close(&flat(&dx), &flat(&x.grad()));
}

#[test]
fn a_mean_far_from_zero_costs_no_digits_of_the_variance() {
    let x = (images(0.1) - 3.0) * 1e-2 + 1000.0;
    let single = rows(&x.to_kind(Kind::Float));
    let exact = flat(&host::sums::<f64>(&rows(&single.to_kind(Kind::Double)), 2));
    let ours = flat(&host::sums::<f32>(&single, 2));
    for c in 0..6 {
        let variance = |sums: &[f64]| sums[6 + c] / 50.0 - (sums[c] / 50.0).powi(2);
        let (a, b) = (variance(&ours), variance(&exact));
        assert!((a - b).abs() < 1e-3 * b, "channel {c}: {a} against {b}");
    }
}

#[test]
fn sums_do_not_depend_on_the_number_of_threads() {
    let x = Tensor::arange(64 * 64 * 64 * 16, (Kind::Float, Device::Cpu)).sin();
    let x = rows(&x.view([64, 64, 64, 16]));
    let with = |threads| {
        tch::set_num_threads(threads);
        host::sums::<f32>(&x, 2)
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn sixteen_bits_give_what_rounding_the_result_in_thirty_two_gives() {
    let [x, g, residual] = [images(0.1), images(1.3) - 3.0, images(0.6) - 3.5]
        .map(|x| rows(&x.to_kind(Kind::BFloat16)));
    let single = |x: &Tensor| rows(&x.to_kind(Kind::Float));
    let moments = moments(&x, 2, 50.0);
    assert_close(&flat(&sums(&x, 2)), &flat(&sums(&single(&x), 2)));
    let affine = (&channel(0.0), &channel(2.0));
    let ours = normalize(&x, &moments, affine, After::AddRelu(&residual));
    let want = normalize(&single(&x), &moments, affine, After::AddRelu(&single(&residual)));
    assert_eq!(ours, rows(&want.to_kind(Kind::BFloat16)));
    let (mut ours, mut want) = (g.copy(), single(&g));
    let sums = gradient_sums(&mut ours, Some(&residual), &x, &moments);
    let exact = gradient_sums(&mut want, Some(&single(&residual)), &single(&x), &moments);
    assert_close(&flat(&sums), &flat(&exact));
    let ours = input_gradient(&ours, &x, &moments, affine.0, (&sums, 50.0));
    let want = input_gradient(&want, &single(&x), &moments, affine.0, (&sums, 50.0));
    assert_eq!(ours, rows(&want.to_kind(Kind::BFloat16)));
}

#[test]
fn the_host_moves_weights_as_aten_does() {
    let [theta, momentum, gradient] =
        [0.1, 1.3, 0.6].map(|seed| images(seed).contiguous().view([-1]));
    for (nesterov, trust) in [(false, None), (true, Some(0.7)), (false, Some(1e-3))] {
        let how = Move { decay: 0.1, trust, momentum: 0.9, nesterov, learning_rate: 0.3 };
        let [ours, theirs] = [host::update::<f64>, aten::update].map(|update| {
            let (mut theta, mut momentum) = (theta.copy(), momentum.copy());
            update(&mut theta, &mut momentum, &gradient, how);
            [theta, momentum]
        });
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_close(&flat(ours), &flat(theirs));
        }
    }
}

#[test]
fn on_a_device_too_weights_or_gradients_of_zero_are_moved_without_trust() {
    let zero = Tensor::zeros([6], (Kind::Double, Device::Cpu));
    let how =
        Move { decay: 0.0, trust: Some(1e-3), momentum: 0.9, nesterov: false, learning_rate: 1.0 };
    for (theta, gradient) in [(&zero, channel(0.0)), (&channel(1.0), zero.copy())] {
        let (mut theta, before) = (theta.copy(), theta);
        aten::update(&mut theta, &mut zero.copy(), &gradient, how);
        assert_close(&flat(&theta), &flat(&(before - gradient)));
    }
}
