#!/usr/bin/env python3
"""Writes golden.json: what torchvision and Pillow make of one small image.

    pip install torch torchvision pillow
    python worker/data/tests/golden.py

Run by hand when a transform is added; the tests read only the file it leaves
beside it. Made with torch 2.13.0, torchvision 0.28.0, Pillow 13.0.0.

Every case is a crop (left, top, width, height), resized to a square of 12 and
then transformed as float planes. Values are interleaved RGB in 0..1, in 1/1,000,000.
"""

import json
import pathlib

import numpy
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image

WIDTH, HEIGHT, SIZE = 24, 20, 12
SAME = [5, 4, SIZE, SIZE]  # a crop that needs no resizing
BICUBIC = tv.InterpolationMode.BICUBIC


def picture():
    """Gradients with noise on top, and an edge, a gray and a black part."""
    y, x, c = numpy.mgrid[0:HEIGHT, 0:WIDTH, 0:3]
    value = 9 * x + 4 * y * (c + 1) + (x * x * 3 + y * y * 5 + 29 * c) % 61
    value[:, 15:17] = 255 - value[:, 15:17]
    value[6:9, 6:9] = value[6:9, 6:9, :1]
    value[10, 10] = 0
    return (value % 256).astype(numpy.uint8)


def cropped(image, crop):
    left, top, width, height = crop
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    view = tv.resized_crop(tensor, top, left, height, width, [SIZE, SIZE], BICUBIC, antialias=True)
    return view.float() / 255


def values(view):
    return [round(v * 1_000_000) for v in view.permute(1, 2, 0).flatten().tolist()]


STEPS = {
    "flip": lambda x, _: tv.horizontal_flip(x),
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
    "grayscale": lambda x, _: tv.rgb_to_grayscale(x, num_output_channels=3),
    "blur5": lambda x, sigma: tv.gaussian_blur(x, [5, 5], [sigma, sigma]),
    "blur11": lambda x, sigma: tv.gaussian_blur(x, [11, 11], [sigma, sigma]),
    "solarize": lambda x, _: tv.solarize(x, 0.5),
}

CASES = [
    (SAME, []),
    ([2, 1, 17, 13], []),
    ([4, 6, 7, 5], []),
    ([0, 0, WIDTH, HEIGHT], []),
    *[(SAME, [(name, argument)]) for name, argument in [
        ("flip", 0), ("brightness", 0.63), ("brightness", 1.37), ("contrast", 0.65),
        ("contrast", 1.4), ("saturation", 0.8), ("saturation", 1.2), ("hue", 0.1),
        ("hue", -0.07), ("hue", 0.5), ("grayscale", 0), ("blur5", 0.4), ("blur5", 1.7),
        ("blur11", 2.0), ("solarize", 0),
    ]],
    ([2, 1, 17, 13], [("flip", 0), ("brightness", 1.3), ("contrast", 0.7), ("saturation", 1.15),
                      ("hue", 0.08), ("blur5", 1.1), ("solarize", 0)]),
    ([4, 6, 7, 5], [("hue", -0.1), ("saturation", 0.85), ("contrast", 1.35), ("brightness", 0.7),
                    ("grayscale", 0), ("blur5", 0.3)]),
]


def run(image, crop, steps):
    view = cropped(image, crop)
    for name, argument in steps:
        view = STEPS[name](view, argument)
    return values(view)


def pillow(image, crop):
    left, top, width, height = crop
    part = Image.fromarray(image).crop((left, top, left + width, top + height))
    return numpy.asarray(part.resize((SIZE, SIZE), Image.BICUBIC)).flatten().tolist()


def evaluation(image, short):
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    view = tv.resize(tensor, [short], BICUBIC, antialias=True)
    return values(tv.center_crop(view, [SIZE, SIZE]).float() / 255)


def main():
    image = picture()
    golden = {
        "width": WIDTH,
        "height": HEIGHT,
        "size": SIZE,
        "pixels": image.flatten().tolist(),
        "cases": [{"crop": c, "steps": s, "values": run(image, c, s)} for c, s in CASES],
        "pillow": [{"crop": c, "values": pillow(image, c)} for c, s in CASES if not s],
        "evaluation": [{"short": s, "values": evaluation(image, s)} for s in (12, 14, 17, 31)],
    }
    path = pathlib.Path(__file__).with_name("golden.json")
    path.write_text(json.dumps(golden, separators=(",", ":")).replace('{"', '\n{"') + "\n")


if __name__ == "__main__":
    main()
