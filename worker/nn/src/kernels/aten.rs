//! The same operations in ATen's words, for devices whose memory the host can't walk.

use tch::{Kind, Tensor};

use super::{After, Moments, Move, Sums, channels};

pub(super) fn sums(x: &Tensor, groups: usize) -> Sums {
    let x = grouped(x, groups).to_kind(Kind::Double);
    let pair = [over_rows(&x), over_rows(&(&x * &x))];
    to_host(&Tensor::stack(&pair, 1))
}

pub(super) fn normalize(
    x: &Tensor,
    moments: &Moments,
    (gamma, beta): (&[f64], &[f64]),
    after: After<'_>,
) -> Tensor {
    let scale = per_group(gamma, x) * per_group(&moments.inv_std, x);
    let shift = per_group(beta, x) - per_group(&moments.mean, x) * &scale;
    let groups = scale.size()[0];
    let grouped_x = grouped(x, usize::try_from(groups).expect("sizes are positive"));
    let y = (grouped_x * scale.to_kind(x.kind()) + shift.to_kind(x.kind())).reshape(x.size());
    match after {
        After::Nothing => y,
        After::Relu => y.relu(),
        After::AddRelu(residual) => (y + residual).relu(),
    }
}

pub(super) fn gradient_sums(
    g: &mut Tensor,
    y: Option<&Tensor>,
    x: &Tensor,
    moments: &Moments,
) -> Sums {
    if let Some(y) = y {
        *g = g.where_self(&y.gt(0.0), &Tensor::zeros([], (g.kind(), g.device())));
    }
    let groups = moments.mean.len() / channels(x);
    let (g, x_hat) = (grouped(g, groups).to_kind(Kind::Double), normalized(x, moments));
    to_host(&Tensor::stack(&[over_rows(&g), over_rows(&(&g * &x_hat))], 1))
}

pub(super) fn input_gradient(
    g: &Tensor,
    x: &Tensor,
    moments: &Moments,
    gamma: &[f64],
    (sums, count): (&Sums, f64),
) -> Tensor {
    let (width, groups) = (channels(x), moments.mean.len() / channels(x));
    let which = |offset: usize| -> Vec<f64> {
        (0..groups)
            .flat_map(|group| sums[(2 * group + offset) * width..][..width].to_vec())
            .collect()
    };
    let centred = grouped(g, groups).to_kind(Kind::Double)
        - per_group(&which(0), x) / count
        - normalized(x, moments) * per_group(&which(1), x) / count;
    (per_group(gamma, x) * per_group(&moments.inv_std, x) * centred)
        .to_kind(x.kind())
        .reshape(x.size())
}

pub(super) fn norms(theta: &Tensor, gradient: &Tensor, decay: f64) -> [f64; 2] {
    [theta.norm(), (gradient + theta * decay).norm()].map(|norm| norm.double_value(&[]))
}

pub(super) fn update(theta: &mut Tensor, momentum: &mut Tensor, gradient: &Tensor, how: Move) {
    let gradient = (gradient + &*theta * how.decay) * how.scale;
    *momentum *= how.momentum;
    *momentum += &gradient;
    let along =
        if how.nesterov { gradient + &*momentum * how.momentum } else { momentum.shallow_clone() };
    *theta -= along * how.learning_rate;
}

/// x̂, grouped, in f64.
fn normalized(x: &Tensor, moments: &Moments) -> Tensor {
    let groups = moments.mean.len() / channels(x);
    (grouped(x, groups).to_kind(Kind::Double) - per_group(&moments.mean, x))
        * per_group(&moments.inv_std, x)
}

/// `[B, C, …]` as `[groups, B / groups, C, H·W]`.
fn grouped(x: &Tensor, groups: usize) -> Tensor {
    let groups = i64::try_from(groups).expect("few groups");
    let size = x.size();
    x.reshape([groups, size[0] / groups, size[1], size[2..].iter().product()])
}

/// `[group][channel]` on the host as `[groups, 1, C, 1]` beside `x`.
fn per_group(values: &[f64], x: &Tensor) -> Tensor {
    Tensor::from_slice(values).to_device(x.device()).view([-1, 1, x.size()[1], 1])
}

/// `[groups, rows, C, H·W]` to `[groups, C]`.
fn over_rows(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([1_i64, 3].as_slice(), false, Kind::Double)
}

fn to_host(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.contiguous().view([-1])).expect("a dense f64 tensor becomes a vector")
}
