#!/usr/bin/env python3
"""Recomputes audited steps in one process with PyTorch's autograd, and compares every tensor.

    coordinator … --audit-step 0 --audit-dir audit        (and its workers)
    check_step.py audit/step-0

The reference is computed in float64 whatever the run computed in, so that an error shown is the run's alone. For
a float32 run the same step is also computed by PyTorch in float32, in three ways that differ in rounding only:
`PyTorch` is the largest error that it makes itself. Where a ReLU's input is closer to 0 than rounding, two correct
programs take different sides, and a gradient jumps by that image's share; a deep network at its start has many
such places. --or-as-pytorch F accepts an error above the tolerance that is at most F times PyTorch's own.

An error is the largest difference relative to the largest entry of the tensor. One kind of tensor has no
entries to speak of: a bias in front of a batch norm moves nothing, so its gradient is a sum of the batch's terms
that cancel, and what is stored are rounding errors. Its gradient and momentum are compared relative to the sum of
the terms' absolute values, its value relative to the weight of its layer.

In bfloat16 every activation is off by up to 2^-9 and kinks are all over, so a largest error says little. There an
error is the root mean square of the difference relative to that of the tensor, and both the worst tensor's and the mean
over the tensors are held against those of PyTorch's autocast to bfloat16: those of its three ways differ little. The
loss, and the update of weights, momentum and target, are float32 in such a run: they are compared with what must follow
from the run's own outputs and gradients, to float32's tolerance.

Exit codes: 0 all within the tolerance, 1 not, 2 the step can't be read or recomputed.
"""

import argparse
import json
import math
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from byol_step import DEPTHS, STATISTICS, loss_per_image, run_step, update

# What PyTorch says when oneDNN is turned off, on machines without its GPU.
warnings.filterwarnings("ignore", message="TF32 acceleration")

TOLERANCES = {"f64": 1e-9, "f32": 2e-5, "bf16": 2**-8}  # bf16: one rounding
FOLLOWS = ("loss", "after")
FIGURES = {"f64": ["error"], "f32": ["error"], "bf16": ["error", "mean"]}
BEFORE_BATCH_NORM = ("projector.0.bias", "predictor.0.bias")


class Unusable(Exception):
    """The step can't be compared; the text says why."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", type=Path, metavar="DIR/step-K")
    parser.add_argument("--tolerance", type=float, help="default: 1e-9 for f64, 2e-5 for f32, 2^-8 for bf16")
    parser.add_argument("--or-as-pytorch", type=float, default=0.0, metavar="F", help="not for f64, see above")
    parser.add_argument("--json", action="store_true", help="one JSON object per step")
    arguments = parser.parse_args()
    good = True
    for folder in arguments.steps:
        found = check(folder, arguments.tolerance, arguments.or_as_pytorch)
        print(json.dumps(found) if arguments.json else table(found), flush=True)
        good &= found["ok"]
    return 0 if good else 1


def check(folder, tolerance, factor):
    meta = read_meta(folder)
    dtype = meta["dtype"]
    dump = Dump(folder, meta)
    exact, terms = dump.recompute(torch.float64)
    norm = 2 if dtype == "bf16" else math.inf
    if dtype == "bf16":
        exact |= dump.follow_own()
    kinds = compare(dump.stored(), exact, terms, norm)
    for peer in dump.recompute_as_run() if dtype != "f64" else []:
        compared = {group: tensors for group, tensors in peer.items() if dtype != "bf16" or group not in FOLLOWS}
        for kind, row in compare(compared, exact, terms, norm).items():
            worst = kinds[kind].setdefault("pytorch", {"error": 0.0, "mean": 0.0})
            worst |= {figure: max(row[figure], worst[figure]) for figure in worst}
    for row in kinds.values():
        computed_in = "f32" if dtype == "bf16" and row["group"] in FOLLOWS else dtype
        row["tolerance"] = tolerance or TOLERANCES[computed_in]
        # NaN is within no tolerance.
        row["within"] = row["error"] <= row["tolerance"]
        row["ok"] = row["within"] or as_pytorch(row, factor, FIGURES[dtype])
    ok = all(row["ok"] for row in kinds.values())
    return {"path": str(folder), "ok": ok, "meta": meta, "kinds": kinds}


def as_pytorch(row, factor, figures):
    return "pytorch" in row and all(row[figure] <= factor * row["pytorch"][figure] for figure in figures)


def read_meta(folder):
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError) as error:
        raise Unusable(f"{folder} is no audited step: {error}") from error
    if meta["architecture"] not in DEPTHS or meta["dtype"] not in TOLERANCES:
        raise Unusable(f"{folder}: architecture {meta['architecture']} in {meta['dtype']} is not known here")
    return meta


class Dump:
    """The files of one step."""

    def __init__(self, folder, meta):
        self.meta = meta
        try:
            self.before, self.after, self.gradients = (
                load_file(folder / f"{name}.safetensors") for name in ("before", "after", "grads")
            )
            ranks = [load_file(folder / f"rank-{rank}.safetensors") for rank in range(meta["world"])]
        except Exception as error:
            raise Unusable(f"{folder}: {error}") from error
        self.loss_sums = torch.stack([rank.pop("loss_sum") for rank in ranks])
        self.batch = {name: torch.cat([rank[name] for rank in ranks]) for name in ranks[0]}
        counts = [len(rank["view1"]) for rank in ranks]
        if counts != meta["samples_per_rank"] or sum(counts) != meta["global_batch"]:
            raise Unusable(f"{folder}: ranks hold {counts} samples, meta.json says otherwise")

    def recompute(self, dtype, memory_format=torch.contiguous_format):
        before = {name: tensor.to(dtype) for name, tensor in self.before.items()}
        views = [self.batch[name].to(dtype, memory_format=memory_format) for name in ("view1", "view2")]
        micro_batches = zip(*(self.cut(view) for view in views))
        found = run_step(before, micro_batches, self.meta)
        found["outputs"] = {name: self.join(parts) for name, parts in found["outputs"].items()}
        terms = found.pop("terms")
        return found | {"loss": self.of_ranks(found["outputs"].pop("losses"))}, terms

    def cut(self, rows):
        """Micro-batch m takes the m-th part of every lane."""
        lanes = rows.unflatten(0, (-1, self.meta["samples_per_lane"]))
        return [part.flatten(0, 1) for part in lanes.chunk(self.meta["accumulate"], 1)]

    def join(self, parts):
        length = self.meta["samples_per_lane"] // self.meta["accumulate"]
        return torch.cat([part.unflatten(0, (-1, length)) for part in parts], 1).flatten(0, 1)

    def recompute_as_run(self):
        """As PyTorch computes by default, with channels-last images, and without oneDNN."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.meta["dtype"] == "bf16"):
            yield self.recompute(torch.float32)[0]
            yield self.recompute(torch.float32, torch.channels_last)[0]
            with torch.backends.mkldnn.flags(enabled=False):
                yield self.recompute(torch.float32)[0]

    def follow_own(self):
        """What follows from the run's own outputs and gradients."""
        before, gradients, batch = (exactly(tensors) for tensors in (self.before, self.gradients, self.batch))
        losses = loss_per_image(batch["q1"], batch["z2"]) + loss_per_image(batch["q2"], batch["z1"])
        return {"loss": self.of_ranks(losses), "after": update(before, gradients, self.meta)}

    def stored(self):
        outputs = {name: self.batch[name] for name in ("q1", "q2", "z1", "z2")}
        loss = self.with_mean(self.loss_sums)
        loss["mean"] = torch.tensor(self.meta["loss"], dtype=torch.float64)
        statistics = {name: average for name, average in self.after.items() if name.endswith(STATISTICS)}
        after = {name: tensor for name, tensor in self.after.items() if name not in statistics}
        found = {"outputs": outputs, "loss": loss, "gradients": self.gradients}
        return found | {"statistics": statistics, "after": after}

    def of_ranks(self, losses):
        parts = losses.split(self.meta["samples_per_rank"])
        return self.with_mean(torch.stack([part.sum() for part in parts]))

    def with_mean(self, sums):
        """Loss of each rank, and over the global batch."""
        by_rank = {f"rank {rank}": loss for rank, loss in enumerate(sums)}
        return by_rank | {"mean": sums.sum() / self.meta["global_batch"]}


def compare(ours, exact, terms, norm):
    """The largest error of every kind of tensor and where it is, and the mean over its tensors."""
    kinds = {}
    for group in ours:
        wanted = exact[group]
        if ours[group].keys() != wanted.keys():
            odd = sorted(ours[group].keys() ^ wanted.keys())
            raise Unusable(f"{group}: tensors that only one side has: {odd[:5]}")
        for name, reference in wanted.items():
            error = relative_error(ours[group][name], reference, scale(group, name, wanted, terms), norm)
            new = {"group": group, "tensors": 0, "error": -1.0, "at": "", "mean": 0.0}
            row = kinds.setdefault(kind_of(group, name), new)
            row["tensors"] += 1
            row["mean"] += (error - row["mean"]) / row["tensors"]
            if not error <= row["error"]:
                row |= {"error": error, "at": name}
    return kinds


def exactly(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def relative_error(ours, reference, scale, norm):
    if ours.shape != reference.shape:
        raise Unusable(f"a shape is {list(ours.shape)}, expected {list(reference.shape)}")
    size = lambda x: torch.linalg.vector_norm(x.double(), norm).item()
    difference = size(ours.double() - reference.double())
    return difference / (size(scale) or sys.float_info.min) if difference else 0.0


def scale(group, name, tensors, terms):
    """The tensor that an error is relative to."""
    if not name.endswith(BEFORE_BATCH_NORM):
        return tensors[name]
    moved = group == "gradients" or name.startswith("momentum.")
    return terms[name.removeprefix("momentum.")] if moved else tensors[name.removesuffix("bias") + "weight"]


def kind_of(group, name):
    if group == "outputs":
        return {"q": "predictions q", "z": "target projections z"}[name[0]]
    if name.endswith(BEFORE_BATCH_NORM):
        return "biases before batch norm" if group == "gradients" else "after: biases before BN"
    if group == "statistics":
        return "after: running statistics"
    if group != "after":
        return group
    return {"online": "after: weights", "target": "after: target", "momentum": "after: momentum"}[name.split(".")[0]]


def table(found):
    meta = found["meta"]
    samples = "+".join(str(count) for count in meta["samples_per_rank"])
    lines = [
        f"{found['path']}: world {meta['world']} ({samples}), {meta['architecture']} width {meta['width']}, "
        f"{meta['stem']} stem, {meta['optimizer']}, {meta['dtype']}, eta {meta['eta']:.4g}, tau {meta['tau']:.4g}"
    ]
    for kind, row in found["kinds"].items():
        figures = "".join(f"  {figure} {shown(row, figure)}" for figure in FIGURES[meta["dtype"]])
        mark = " " if row["within"] else "~" if row["ok"] else "!"
        lines.append(f"{mark} {kind:26} {row['tensors']:4} tensors{figures}  {row['at']}")
    if all(row["within"] for row in found["kinds"].values()):
        verdict = "within the tolerance of"
    elif found["ok"]:
        verdict = f"~ where marked, PyTorch's own {meta['dtype']} is beyond too:"
    else:
        verdict = "! BEYOND the tolerance of"
    tolerances = sorted({row["tolerance"] for row in found["kinds"].values()})
    return "\n".join([*lines, f"  {verdict} {' and '.join(f'{tolerance:.0e}' for tolerance in tolerances)}"])


def shown(row, figure):
    own = f" (PyTorch {row['pytorch'][figure]:.1e})" if "pytorch" in row else ""
    return f"{row[figure]:.1e}{own}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
