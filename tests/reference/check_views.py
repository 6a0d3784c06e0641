#!/usr/bin/env python3
"""Recomputes the views of `worker preview` with torchvision and Pillow, for the same images and the same draws.

    worker preview --shards DIR --out sheet.png --views views.safetensors --json > views.json
    check_views.py DIR views.json views.safetensors

Each view is made three times: in float32 from what Pillow decodes; on 8-bit tensors, rounded after every step, as
torchvision's transforms do it; and on Pillow images. Prints the mean and the largest difference in steps of 8 bits. Exit
codes: 0 all means are within the limit, 1 one is not.
"""

import argparse
import io
import json
import sys
import tarfile
from pathlib import Path

import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image
from safetensors.torch import load_file

BICUBIC = tv.InterpolationMode.BICUBIC
JITTER = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
}


def images(data):
    """The images of a data set in the order of their numbers."""
    for shard in json.loads((data / "manifest.json").read_text())["shards"]:
        with tarfile.open(data / shard["file"]) as tar:
            for member in tar:
                if member.name.endswith((".jpg", ".png")):
                    yield Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")


def in_floats(image):
    return tv.pil_to_tensor(image).float() / 255


def in_fraction(image):
    """As fractions of 1, from whatever a view was made in."""
    if isinstance(image, Image.Image):
        image = tv.pil_to_tensor(image)
    return image if image.is_floating_point() else image.float() / 255


# What a view is made in, from Pillow's image.
WAYS = {"float32": in_floats, "uint8 tensors": tv.pil_to_tensor, "Pillow": lambda image: image}


def clipped(image):
    """Bicubic weights overshoot; only floats need to be told."""
    return image.clip(0, 1) if isinstance(image, torch.Tensor) and image.is_floating_point() else image


def view(image, drawn, settings):
    crop, side = drawn["crop"], [settings["size"]] * 2
    image = tv.resized_crop(image, crop["top"], crop["left"], crop["height"], crop["width"], side, BICUBIC, antialias=True)
    image = clipped(image)
    if drawn["flip"]:
        image = tv.horizontal_flip(image)
    for name, factor in drawn["jitter"]:
        image = JITTER[name](image, factor)
    if drawn["grayscale"]:
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if drawn["blur"] is not None:
        image = tv.gaussian_blur(image, [settings["blur_kernel"]] * 2, [drawn["blur"]] * 2)
    if drawn["solarize"]:
        floats = isinstance(image, torch.Tensor) and image.is_floating_point()
        image = tv.solarize(image, 0.5 if floats else 128)
    return in_fraction(image)


def evaluation(image, settings):
    resized = clipped(tv.resize(image, [settings["eval_resize"]], BICUBIC, antialias=True))
    return in_fraction(tv.center_crop(resized, [settings["size"]] * 2))


def differences(settings, data, ours):
    """(name of the view, way) to the absolute differences of all samples, in steps of 8 bits."""
    std = torch.tensor(settings["std"]).view(3, 1, 1)
    wanted = {sample["id"]: (row, sample) for row, sample in enumerate(settings["samples"])}
    found = {}
    for number, image in enumerate(images(data)):
        if number not in wanted:
            continue
        row, sample = wanted[number]
        assert image.size == (sample["width"], sample["height"]), f"sample {number} is {image.size}"
        for way, start in WAYS.items():
            made = {
                "view_one": view(start(image), sample["views"][0], settings),
                "view_two": view(start(image), sample["views"][1], settings),
                "evaluation": evaluation(start(image), settings),
            }
            for name, fractions in made.items():
                expected = tv.normalize(fractions, settings["mean"], settings["std"])
                found.setdefault((name, way), []).append(255 * std * (ours[name][row] - expected).abs())
    return {key: torch.stack(values) for key, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="the data set")
    parser.add_argument("drawn", type=Path, metavar="views.json", help="what `worker preview --json` printed")
    parser.add_argument("views", type=Path, metavar="views.safetensors", help="what `--views` wrote")
    parser.add_argument("--limit", type=float, default=2, help="of the mean difference of any way, in steps of 8 bits")
    parser.add_argument("--float-limit", type=float, default=1, help="of that of float32")
    args = parser.parse_args()
    settings = json.loads(args.drawn.read_text())
    found = differences(settings, args.data, load_file(args.views))
    print(f"{len(settings['samples'])} images, views of {settings['size']} px, differences in 1/255")
    good = True
    for (name, way), values in found.items():
        limit = args.float_limit if way == "float32" else args.limit
        mean, worst = values.mean().item(), values.mean(dim=(1, 2, 3)).max().item()
        print(f"  {name:<11} {way:<14} mean {mean:7.4f}, of the worst view {worst:7.4f}, largest {values.max():7.2f}")
        good = good and mean <= limit
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
