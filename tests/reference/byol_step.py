"""One BYOL step in plain PyTorch, on one machine, with autograd: what a distributed step must equal.

Written from the paper (Grill et al. 2020, arXiv:2006.07733) and PyTorch's documentation. It knows nothing of
ranks: the batch is the whole global batch. Tensors have torchvision's names.
"""

import torch
import torch.nn.functional as F

# Residual blocks per stage, and whether a block is a bottleneck (1x1, 3x3, 1x1) or basic (3x3, 3x3).
DEPTHS = {
    "resnet18": ([2, 2, 2, 2], False),
    "resnet34": ([3, 4, 6, 3], False),
    "resnet50": ([3, 4, 6, 3], True),
    "resnet101": ([3, 4, 23, 3], True),
    "resnet152": ([3, 8, 36, 3], True),
    "resnet200": ([3, 24, 36, 3], True),
}
STATISTICS = ("running_mean", "running_var")


class Network:
    """Encoder and projector (and predictor) with their running statistics, by name."""

    def __init__(self, tensors, meta):
        self.running = {n: t.clone() for n, t in tensors.items() if n.endswith(STATISTICS)}
        self.weights = {n: t.clone() for n, t in tensors.items() if n not in self.running}
        self.meta = meta
        lanes = meta["global_batch"] // meta["samples_per_lane"]
        self.groups = lanes // (meta.get("bn_group", 0) or lanes)
        self.used = set()
        self.hidden = []

    def weight(self, name):
        self.used.add(name)
        return self.weights[name]

    def batch_norm(self, name, x):
        """With the statistics of each group of this batch; moves the running averages by the mean over the groups."""
        mean, variance = f"{name}.running_mean", f"{name}.running_var"
        self.used |= {mean, variance}
        groups = [self.normalize(name, group) for group in x.chunk(self.groups)]
        normalized, means, variances = zip(*groups)
        self.running[mean], self.running[variance] = torch.stack(means).mean(0), torch.stack(variances).mean(0)
        return torch.cat(normalized)

    def normalize(self, name, x):
        """One group, and the running averages that it would make alone, whose variance is the unbiased one."""
        mean, variance = (self.running[f"{name}.running_{which}"].clone() for which in ("mean", "var"))
        y = F.batch_norm(
            x,
            mean,
            variance,
            self.weight(f"{name}.weight"),
            self.weight(f"{name}.bias"),
            training=True,
            momentum=1 - self.meta["bn_decay"],
            eps=self.meta["bn_eps"],
        )
        return y, mean, variance

    def conv(self, name, x, stride=1):
        weight = self.weight(f"{name}.weight")
        return F.conv2d(self.pad(x, weight.shape[-1], stride), weight, stride=stride)

    def pad(self, x, kernel, stride, value=0.0):
        """torchvision pads half the kernel on all sides; `same` what the output size needs, the odd pixel behind."""
        sides = []
        for size in (x.shape[3], x.shape[2]):
            if self.meta.get("padding", "torchvision") == "same":
                total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                sides += [total // 2, total - total // 2]
            else:
                sides += [kernel // 2, kernel // 2]
        return F.pad(x, sides, value=value)

    def block(self, name, x, stride, bottleneck):
        strides = [1, stride, 1] if bottleneck else [stride, 1]
        y = x
        for index, own_stride in enumerate(strides, 1):
            y = self.batch_norm(f"{name}.bn{index}", self.conv(f"{name}.conv{index}", y, own_stride))
            if index < len(strides):
                y = F.relu(y)
        if f"{name}.downsample.0.weight" in self.weights:
            x = self.conv(f"{name}.downsample.0", x, stride)
            x = self.batch_norm(f"{name}.downsample.1", x)
        return F.relu(y + x)

    def encode(self, x):
        imagenet = self.meta["stem"] == "imagenet"
        x = F.relu(self.batch_norm("encoder.bn1", self.conv("encoder.conv1", x, 2 if imagenet else 1)))
        if imagenet:
            x = F.max_pool2d(self.pad(x, 3, 2, value=float("-inf")), 3, stride=2)
        stages, bottleneck = DEPTHS[self.meta["architecture"]]
        for stage, blocks in enumerate(stages, 1):
            for index in range(blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                x = self.block(f"encoder.layer{stage}.{index}", x, stride, bottleneck)
        return x.mean((2, 3))

    def head(self, name, x):
        """Under autocast too, the output has the weights' type: losses are no matter for 16 bits."""
        x = F.linear(x, self.weight(f"{name}.0.weight"), self.weight(f"{name}.0.bias"))
        self.hidden.append((f"online.{name}.0.bias", x))
        x = F.relu(self.batch_norm(f"{name}.1", x))
        last = self.weight(f"{name}.3.weight")
        return F.linear(x, last).to(last.dtype)

    def project(self, x):
        return self.head("projector", self.encode(x))


def loss_per_image(q, z):
    """The squared distance of the normalized vectors, 0 to 4 (equation 2)."""
    q, z = (x * (x * x).sum(-1, keepdim=True).clamp_min(1e-12).rsqrt() for x in (q, z))
    return (q - z).square().sum(-1)


def updated(weight, gradient, momentum, meta):
    """Weight and momentum behind one update by LARS or SGD.

    Weight decay and the trust ratio leave biases and batch norm alone.
    """
    step = gradient
    if weight.dim() > 1:
        step = step + meta["weight_decay"] * weight
        norms = weight.norm(), step.norm()
        if meta["optimizer"] == "lars" and min(norms) > 0:
            step = step * (meta["trust_coefficient"] * norms[0] / norms[1])
    momentum = meta["momentum"] * momentum + step
    if meta.get("nesterov", False):
        step = step + meta["momentum"] * momentum
    else:
        step = momentum
    return weight - meta["eta"] * step, momentum


@torch.no_grad()
def update(before, gradients, meta):
    """Weights, momentum and target behind a step of these gradients."""
    after = {}
    for name, gradient in gradients.items():
        weight, momentum = before[name], before[f"momentum.{name}"]
        after[name], after[f"momentum.{name}"] = updated(weight, gradient, momentum, meta)
    for name, weight in part(before, "target.").items():
        if not name.endswith(STATISTICS):
            tau = meta["tau"]
            after[f"target.{name}"] = tau * weight + (1 - tau) * after[f"online.{name}"]
    return after


def part(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def run_step(before, micro_batches, meta):
    """All that a step makes of `before` and micro-batches of two views, by name.

    Each micro-batch is normalized by itself and moves the running averages; weights move once.
    """
    online, target = Network(part(before, "online."), meta), Network(part(before, "target."), meta)
    leaves = {name: weight.requires_grad_() for name, weight in online.weights.items()}
    outputs = []
    for views in micro_batches:
        with torch.no_grad():
            z1, z2 = [target.project(view) for view in views]  # view 1 first: running averages depend on it
        q1, q2 = [online.head("predictor", online.project(view)) for view in views]
        losses = loss_per_image(q1, z2) + loss_per_image(q2, z1)
        outputs.append({"q1": q1, "q2": q2, "z1": z1, "z2": z2, "losses": losses})
    loss = torch.cat([output["losses"] for output in outputs]).mean()
    hidden = [x for _, x in online.hidden]
    found = torch.autograd.grad(loss, [*leaves.values(), *hidden])
    gradients = {f"online.{name}": gradient for name, gradient in zip(leaves, found)}
    terms = {}
    for (name, _), gradient in zip(online.hidden, found[len(leaves) :]):
        terms[name] = terms.get(name, 0) + gradient.abs().sum(0)
    for network in (online, target):
        if missed := {*network.weights, *network.running} - network.used:
            raise ValueError(f"tensors that a {meta['architecture']} does not have: {sorted(missed)}")

    sides = {"online": online, "target": target}
    return {
        # Of every micro-batch.
        "outputs": {name: [output[name].detach() for output in outputs] for name in outputs[0]},
        "gradients": gradients,
        "statistics": {f"{side}.{name}": t for side, network in sides.items() for name, t in network.running.items()},
        "after": update(before, gradients, meta),
        # Of each bias's gradient, a sum over the batch: the sum of the absolute values.
        "terms": terms,
    }
