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

Exit codes: 0 all within the tolerance, 1 not, 2 the step can't be read or recomputed.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from byol_step import DEPTHS, run_step

# What PyTorch says when oneDNN is turned off, on machines without its GPU.
warnings.filterwarnings("ignore", message="TF32 acceleration")

TOLERANCES = {"f64": 1e-9, "f32": 2e-5}
BEFORE_BATCH_NORM = ("projector.0.bias", "predictor.0.bias")


class Unusable(Exception):
    """The step can't be compared; the text says why."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", type=Path, metavar="DIR/step-K")
    parser.add_argument("--tolerance", type=float, help="default: 1e-9 for f64, 2e-5 for f32")
    parser.add_argument("--or-as-pytorch", type=float, default=0.0, metavar="F", help="f32 only, see above")
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
    if tolerance is None:
        tolerance = TOLERANCES[meta["dtype"]]
    dump = Dump(folder, meta)
    exact, terms = dump.recompute(torch.float64)
    kinds = compare(dump.stored(), exact, terms)
    if meta["dtype"] == "f32":
        for single in dump.recompute_in_float32():
            for kind, row in compare(single, exact, terms).items():
                kinds[kind]["pytorch"] = max(row["error"], kinds[kind].get("pytorch", 0.0))
    for row in kinds.values():
        # NaN is within no tolerance.
        row["within"] = row["error"] <= tolerance
        row["ok"] = row["within"] or row["error"] <= factor * row.get("pytorch", 0.0)
    ok = all(row["ok"] for row in kinds.values())
    return {"path": str(folder), "ok": ok, "tolerance": tolerance, "meta": meta, "kinds": kinds}


def read_meta(folder):
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError) as error:
        raise Unusable(f"{folder} is no audited step: {error}") from error
    if meta["architecture"] not in DEPTHS or meta["dtype"] not in TOLERANCES:
        raise Unusable(f"{folder}: architecture {meta['architecture']} in {meta['dtype']} is not known here")
    if meta.get("bn_group", 0) != 0:
        raise Unusable(f"{folder}: batch norm over groups of lanes is not recomputed here")
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
        parts = found["outputs"].pop("losses").split(self.meta["samples_per_rank"])
        return found | {"loss": self.with_mean(torch.stack([part.sum() for part in parts]))}, terms

    def cut(self, rows):
        """Micro-batch m takes the m-th part of every lane."""
        lanes = rows.unflatten(0, (-1, self.meta["samples_per_lane"]))
        return [part.flatten(0, 1) for part in lanes.chunk(self.meta["accumulate"], 1)]

    def join(self, parts):
        length = self.meta["samples_per_lane"] // self.meta["accumulate"]
        return torch.cat([part.unflatten(0, (-1, length)) for part in parts], 1).flatten(0, 1)

    def recompute_in_float32(self):
        """As PyTorch computes by default, with channels-last images, and without oneDNN."""
        yield self.recompute(torch.float32)[0]
        yield self.recompute(torch.float32, torch.channels_last)[0]
        with torch.backends.mkldnn.flags(enabled=False):
            yield self.recompute(torch.float32)[0]

    def stored(self):
        outputs = {name: self.batch[name] for name in ("q1", "q2", "z1", "z2")}
        loss = self.with_mean(self.loss_sums)
        loss["mean"] = torch.tensor(self.meta["loss"], dtype=torch.float64)
        return {"outputs": outputs, "loss": loss, "gradients": self.gradients, "after": self.after}

    def with_mean(self, sums):
        """Loss of each rank, and over the global batch."""
        by_rank = {f"rank {rank}": loss for rank, loss in enumerate(sums)}
        return by_rank | {"mean": sums.sum() / self.meta["global_batch"]}


def compare(ours, exact, terms):
    """The largest error of every kind of tensor, and where it is."""
    kinds = {}
    for group, wanted in exact.items():
        if ours[group].keys() != wanted.keys():
            odd = sorted(ours[group].keys() ^ wanted.keys())
            raise Unusable(f"{group}: tensors that only one side has: {odd[:5]}")
        for name, reference in wanted.items():
            error = relative_error(ours[group][name], reference, scale(group, name, wanted, terms))
            row = kinds.setdefault(kind_of(group, name), {"tensors": 0, "error": -1.0, "at": ""})
            row["tensors"] += 1
            if not error <= row["error"]:
                row |= {"error": error, "at": name}
    return kinds


def relative_error(ours, reference, scale):
    if ours.shape != reference.shape:
        raise Unusable(f"a shape is {list(ours.shape)}, expected {list(reference.shape)}")
    difference = (ours.double() - reference.double()).abs().max().item()
    return difference / scale if difference else 0.0


def scale(group, name, tensors, terms):
    """What an error of a tensor is relative to."""
    tensor = tensors[name]
    if name.endswith(BEFORE_BATCH_NORM):
        moved = group == "gradients" or name.startswith("momentum.")
        tensor = terms[name.removeprefix("momentum.")] if moved else tensors[name.removesuffix("bias") + "weight"]
    return tensor.abs().max().item() or sys.float_info.min


def kind_of(group, name):
    if group == "outputs":
        return {"q": "predictions q", "z": "target projections z"}[name[0]]
    if name.endswith(BEFORE_BATCH_NORM):
        return "biases before batch norm"
    if group != "after":
        return group
    if name.endswith(("running_mean", "running_var")):
        return "after: running statistics"
    return {"online": "after: weights", "target": "after: target", "momentum": "after: momentum"}[name.split(".")[0]]


def table(found):
    meta = found["meta"]
    samples = "+".join(str(count) for count in meta["samples_per_rank"])
    lines = [
        f"{found['path']}: world {meta['world']} ({samples}), {meta['architecture']} width {meta['width']}, "
        f"{meta['stem']} stem, {meta['optimizer']}, {meta['dtype']}, eta {meta['eta']:.4g}, tau {meta['tau']:.4g}"
    ]
    for kind, row in found["kinds"].items():
        own = f"  PyTorch {row['pytorch']:.1e}" if "pytorch" in row else ""
        mark = " " if row["within"] else "~" if row["ok"] else "!"
        lines.append(f"{mark} {kind:26} {row['tensors']:4} tensors  error {row['error']:.1e}{own}  {row['at']}")
    if all(row["within"] for row in found["kinds"].values()):
        verdict = "within the tolerance of"
    elif found["ok"]:
        verdict = "~ where marked, PyTorch's own float32 is beyond too:"
    else:
        verdict = "! BEYOND the tolerance of"
    return "\n".join([*lines, f"  {verdict} {found['tolerance']:.0e}"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
