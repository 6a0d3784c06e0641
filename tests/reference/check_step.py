#!/usr/bin/env python3
"""Recomputes audited steps in one process with PyTorch's autograd, and compares every tensor.

    coordinator … --audit-step 0 --audit-dir audit        (and its workers)
    check_step.py audit/step-0

The reference is computed in float64 whatever the run computed in, so that an error shown is the run's alone. For
a float32 run the same step is also computed by PyTorch in float32: `PyTorch` is the error that it makes itself.

An error is the largest difference relative to the largest entry of the tensor. One kind of tensor has none of
its own: a bias in front of a batch norm moves nothing, so its gradient is 0 and what is stored are rounding
errors; it is compared relative to the weight of its layer.

Exit codes: 0 all within the tolerance, 1 not, 2 the step can't be read or recomputed.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from byol_step import DEPTHS, run_step

TOLERANCES = {"f64": 1e-9, "f32": 2e-5}
BEFORE_BATCH_NORM = ("projector.0.bias", "predictor.0.bias")


class Unusable(Exception):
    """The step can't be compared; the text says why."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", type=Path, metavar="DIR/step-K")
    parser.add_argument("--tolerance", type=float, help="default: 1e-9 for f64, 2e-5 for f32")
    parser.add_argument("--json", action="store_true", help="one JSON object per step")
    arguments = parser.parse_args()
    good = True
    for folder in arguments.steps:
        found = check(folder, arguments.tolerance)
        print(json.dumps(found) if arguments.json else table(found), flush=True)
        good &= found["ok"]
    return 0 if good else 1


def check(folder, tolerance=None):
    meta = read_meta(folder)
    if tolerance is None:
        tolerance = TOLERANCES[meta["dtype"]]
    dump = Dump(folder, meta)
    exact = dump.recompute(torch.float64)
    kinds = compare(dump.stored(), exact)
    if meta["dtype"] == "f32":
        single = compare(dump.recompute(torch.float32), exact)
        for kind, row in kinds.items():
            row["pytorch"] = single[kind]["error"]
    # NaN is within no tolerance.
    ok = all(row["error"] <= tolerance for row in kinds.values())
    return {"path": str(folder), "ok": ok, "tolerance": tolerance, "meta": meta, "kinds": kinds}


def read_meta(folder):
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError) as error:
        raise Unusable(f"{folder} is no audited step: {error}") from error
    if meta["architecture"] not in DEPTHS or meta["dtype"] not in TOLERANCES:
        raise Unusable(f"{folder}: architecture {meta['architecture']} in {meta['dtype']} is not known here")
    if meta.get("accumulate", 1) != 1 or meta.get("bn_group", 0) != 0:
        raise Unusable(f"{folder}: micro-batches and batch norm over groups are not recomputed here")
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

    def recompute(self, dtype):
        before = {name: tensor.to(dtype) for name, tensor in self.before.items()}
        views = [self.batch[name].to(dtype) for name in ("view1", "view2")]
        found = run_step(before, views, self.meta)
        parts = found.pop("losses").split(self.meta["samples_per_rank"])
        return found | {"loss": self.with_mean(torch.stack([part.sum() for part in parts]))}

    def stored(self):
        outputs = {name: self.batch[name] for name in ("q1", "q2", "z1", "z2")}
        loss = self.with_mean(self.loss_sums)
        loss["mean"] = torch.tensor(self.meta["loss"], dtype=torch.float64)
        return {"outputs": outputs, "loss": loss, "gradients": self.gradients, "after": self.after}

    def with_mean(self, sums):
        """Loss of each rank, and over the global batch."""
        by_rank = {f"rank {rank}": loss for rank, loss in enumerate(sums)}
        return by_rank | {"mean": sums.sum() / self.meta["global_batch"]}


def compare(ours, exact):
    """The largest error of every kind of tensor, and where it is."""
    kinds = {}
    for group, wanted in exact.items():
        if ours[group].keys() != wanted.keys():
            odd = sorted(ours[group].keys() ^ wanted.keys())
            raise Unusable(f"{group}: tensors that only one side has: {odd[:5]}")
        for name, reference in wanted.items():
            error = relative_error(ours[group][name], reference, scale(name, wanted))
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


def scale(name, tensors):
    if name.endswith(BEFORE_BATCH_NORM):
        name = name.removesuffix("bias") + "weight"
    return tensors[name].abs().max().item() or sys.float_info.min


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
        lines.append(f"  {kind:26} {row['tensors']:4} tensors  error {row['error']:.1e}{own}  {row['at']}")
    verdict = "within" if found["ok"] else "BEYOND"
    return "\n".join([*lines, f"  {verdict} the tolerance of {found['tolerance']:.0e}"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
