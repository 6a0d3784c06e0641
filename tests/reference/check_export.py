#!/usr/bin/env python3
"""Compares an encoder in torchvision with ours, where both have the same weights.

    check_export.py make resnet50 imagenet WEIGHTS         random weights of torchvision, for `worker import`
    check_export.py compare resnet50 imagenet WEIGHTS --features FILE [--audit DIR/step-K]

WEIGHTS must load with strict=True. FILE is of `worker eval features --inputs`: torchvision's features of its inputs
in eval mode must be the same. Of an audited step the *target* network is taken into torchvision in train mode: its
projections of view 1, with the projector written out here, must be those of the step.

An error is the largest difference relative to the largest entry. Exit codes: 0 within --tolerance, 1 not.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("make", "compare"):
        command = commands.add_parser(name)
        command.add_argument("architecture")
        command.add_argument("stem", choices=["imagenet", "small"])
        command.add_argument("weights", type=Path)
    command.add_argument("--features", type=Path)
    command.add_argument("--audit", type=Path, metavar="DIR/step-K")
    command.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    model = make_model(arguments.architecture, arguments.stem)
    if arguments.command == "make":
        save_file(random_state(model), arguments.weights)
        return 0
    errors = compare(model, arguments)
    for what, error in errors.items():
        print(f"{arguments.architecture}, {arguments.stem} stem, {what}: error {error:.1e}")
    return 0 if all(error <= arguments.tolerance for error in errors.values()) else 1


def make_model(architecture, stem):
    """torchvision's model, giving features instead of classes."""
    model = torchvision.models.get_model(architecture)
    model.fc = torch.nn.Identity()
    if stem == "small":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    return model


def random_state(model):
    """Weights as torchvision draws them, with running statistics of some noise and a classifier to leave out."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(16, 3, 64, 64))
    return model.state_dict() | {"fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}


@torch.no_grad()
def compare(model, arguments):
    errors = {}
    weights = {n: t for n, t in load_file(arguments.weights).items() if not n.startswith("fc.")}
    dtype = weights["conv1.weight"].dtype
    model = model.to(dtype)
    model.load_state_dict(weights, strict=True)
    if arguments.features:
        ours = load_file(arguments.features)
        errors["features in eval mode"] = relative_error(ours["features"], model.eval()(ours["inputs"].to(dtype)))
    if arguments.audit:
        before, seen = (load_file(arguments.audit / f"{n}.safetensors") for n in ("before", "rank-0"))
        meta = json.loads((arguments.audit / "meta.json").read_text())
        projections = project(model, before, seen["view1"], meta["bn_eps"])
        errors["projections in train mode"] = relative_error(seen["z1"], projections)
    return errors


def project(model, before, view, eps):
    """Target projections of one whole batch, through torchvision's encoder in train mode."""
    part = lambda prefix: {n.removeprefix(prefix): t for n, t in before.items() if n.startswith(prefix)}
    model.train()
    # num_batches_tracked is not in an audit; nothing else may be missing.
    loaded = model.load_state_dict(part("target.encoder."), strict=False)
    missing = [name for name in loaded.missing_keys if not name.endswith("num_batches_tracked")]
    assert not missing and not loaded.unexpected_keys, loaded
    p = {name: tensor.to(view.dtype) for name, tensor in part("target.projector.").items()}
    hidden = F.linear(model(view), p["0.weight"], p["0.bias"])
    hidden = F.batch_norm(hidden, None, None, p["1.weight"], p["1.bias"], training=True, eps=eps)
    return F.linear(F.relu(hidden), p["3.weight"])


def relative_error(ours, reference):
    return ((ours - reference).abs().max() / reference.abs().max()).item()


if __name__ == "__main__":
    sys.exit(main())
