//! Windows that walk over an image, of a convolution or a max-pool, and what lies outside of the image.
//!
//! Where as much is added on all sides, the operation itself pads. TensorFlow's `SAME` may add one more
//! behind than in front, which no operation of ATen does: then the image is padded first.
//! Images are square.

use tch::Tensor;

use crate::{kernels, tensor};

/// What is added around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Half of the kernel on all sides.
    Torchvision,
    /// As much as ⌈size / stride⌉ windows need, the odd one behind: TensorFlow's `SAME`, which the authors'
    /// code has.
    Same,
}

/// A square window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Side.
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) padding: Padding,
}

impl Window {
    pub(crate) fn convolve(self, x: &Tensor, weight: &Tensor) -> Tensor {
        let _span = tracing::trace_span!("convolution").entered();
        let (x, padding) = self.pad(x, 0.0);
        x.conv2d(weight, None::<&Tensor>, [self.stride; 2], [padding; 2], [1, 1], 1)
    }

    /// Gradients of [`Window::convolve`]: of `x` if `want_input`, and of the weight.
    pub(crate) fn convolve_backward(
        self,
        dy: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        want_input: bool,
    ) -> (Option<Tensor>, Tensor) {
        let (padded, padding) = self.pad(x, 0.0);
        let geometry = (self.stride, padding);
        let (dx, d_weight) =
            tensor::convolution_backward(dy, &padded, weight, geometry, want_input);
        (dx.map(|dx| self.crop(dx, x)), d_weight)
    }

    /// The largest value of each window, and where it was.
    pub(crate) fn max_pool(self, x: &Tensor) -> (Tensor, Tensor) {
        let (x, padding) = self.pad(x, f64::NEG_INFINITY);
        let (kernel, stride) = ([self.kernel; 2], [self.stride; 2]);
        x.max_pool2d_with_indices(kernel, stride, [padding; 2], [1, 1], false)
    }

    /// Gradient of [`Window::max_pool`].
    pub(crate) fn max_pool_backward(self, dy: &Tensor, x: &Tensor, indices: &Tensor) -> Tensor {
        let (padded, padding) = self.pad(x, f64::NEG_INFINITY);
        let (kernel, stride, padding) = ([self.kernel; 2], [self.stride; 2], [padding; 2]);
        let dx = padded.max_pool2d_with_indices_backward(
            dy,
            kernel,
            stride,
            padding,
            [1, 1],
            false,
            indices,
        );
        self.crop(dx, x)
    }

    /// Values in front of and behind the `size` ones of a dimension.
    fn around(self, size: i64) -> [i64; 2] {
        match self.padding {
            Padding::Torchvision => [self.kernel / 2; 2],
            Padding::Same => {
                let windows = (size + self.stride - 1) / self.stride;
                let total = ((windows - 1) * self.stride + self.kernel - size).max(0);
                [total / 2, total - total / 2]
            }
        }
    }

    /// The image as the operation takes it, and what the operation adds on all sides.
    fn pad(self, x: &Tensor, value: f64) -> (Tensor, i64) {
        let [before, after] = self.around(side(x));
        if before == after {
            return (x.shallow_clone(), before);
        }
        (kernels::rows(&x.pad([before, after, before, after], "constant", value)), 0)
    }

    /// The part of a gradient that belongs to the image `x`.
    fn crop(self, dx: Tensor, x: &Tensor) -> Tensor {
        let [before, after] = self.around(side(x));
        if before == after {
            return dx;
        }
        dx.narrow(2, before, side(x)).narrow(3, before, side(x))
    }
}

fn side(x: &Tensor) -> i64 {
    x.size()[2]
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const TORCHVISION: Window = Window { kernel: 3, stride: 2, padding: Padding::Torchvision };
    const SAME: Window = Window { padding: Padding::Same, ..TORCHVISION };

    /// ```text
    ///  1  2  3  4
    ///  5  6  7  8
    ///  9 10 11 12
    /// 13 14 15 16
    /// ```
    fn ramp() -> Tensor {
        Tensor::arange_start(1, 17, (Kind::Double, Device::Cpu)).view([1, 1, 4, 4])
    }

    fn flat(x: &Tensor) -> Vec<f64> {
        Vec::try_from(x.contiguous().view([-1])).unwrap()
    }

    #[test]
    fn same_padding_adds_what_tensorflow_adds() {
        for (kernel, stride, size, want) in [
            (7, 2, 224, [2, 3]),
            (7, 2, 225, [3, 3]),
            (3, 2, 112, [0, 1]),
            (3, 2, 7, [1, 1]),
            (3, 1, 56, [1, 1]),
            (1, 2, 56, [0, 0]),
            (1, 1, 56, [0, 0]),
        ] {
            let window = Window { kernel, stride, padding: Padding::Same };
            assert_eq!(window.around(size), want, "{kernel}×{kernel}/{stride} on {size}");
        }
    }

    #[test]
    fn windows_of_same_padding_begin_at_the_images_edge_and_torchvisions_one_before() {
        let ones = Tensor::ones([1, 1, 3, 3], (Kind::Double, Device::Cpu));
        assert_eq!(flat(&SAME.convolve(&ramp(), &ones)), [54.0, 45.0, 72.0, 54.0]);
        assert_eq!(flat(&TORCHVISION.convolve(&ramp(), &ones)), [14.0, 30.0, 57.0, 99.0]);
    }

    #[test]
    fn nothing_outside_of_the_image_is_ever_the_largest_value() {
        let below_zero = -ramp();
        let (same, _) = SAME.max_pool(&below_zero);
        assert_eq!(flat(&same), [-1.0, -3.0, -9.0, -11.0]);
        let (torchvision, _) = TORCHVISION.max_pool(&below_zero);
        assert_eq!(flat(&torchvision), [-1.0, -2.0, -5.0, -6.0]);
    }

    #[test]
    fn gradients_of_same_padding_match_finite_differences() {
        let x = (ramp() * 1.7).sin();
        let weight = ramp().view([16]).narrow(0, 0, 9).view([1, 1, 3, 3]).cos();
        let dy = Tensor::from_slice(&[0.3, -1.0, 2.0, 0.7]).view([1, 1, 2, 2]);
        let weighed = |y: &Tensor| (y * &dy).sum(Kind::Double).double_value(&[]);
        let (dx, d_weight) = SAME.convolve_backward(&dy, &x, &weight, true);
        let of_weight = |weight: &Tensor| weighed(&SAME.convolve(&x, weight));
        assert_slopes(&d_weight, &weight, of_weight);
        assert_slopes(&dx.unwrap(), &x, |x| weighed(&SAME.convolve(x, &weight)));
        let (_, indices) = SAME.max_pool(&x);
        let dx = SAME.max_pool_backward(&dy, &x, &indices);
        assert_slopes(&dx, &x, |x| weighed(&SAME.max_pool(x).0));
    }

    fn assert_slopes(gradient: &Tensor, at: &Tensor, of: impl Fn(&Tensor) -> f64) {
        assert_eq!(gradient.size(), at.size());
        for (index, ours) in (0..).zip(flat(gradient)) {
            let nudged = |by: f64| {
                let nudge = at.zeros_like();
                let _nudged = nudge.view([-1]).get(index).fill_(by);
                of(&(at + nudge))
            };
            let slope = (nudged(1e-6) - nudged(-1e-6)) / 2e-6;
            assert!((ours - slope).abs() < 1e-8, "element {index}: {ours} against {slope}");
        }
    }
}
