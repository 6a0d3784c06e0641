#!/usr/bin/env python3
"""Writes the values that worker/data/tests compares with: what torchvision and Pillow make of the same images.

    python tests/reference/golden_views.py

Run by hand when a transform is added, with the packages of requirements.txt; the tests read only the files it leaves
in worker/data/tests. All images are made here.

golden.json is about every transform alone, on a small image without JPEG: a crop (left, top, width, height), as float
planes resized to a square of 12, clipped and then transformed. Values are interleaved RGB in 0..1, in 1/1,000,000.
What Pillow makes of the same crops on 8 bits stands beside them, in 0..255.

photos/ is about what training sees: JPEG bytes, decoded by Pillow, cropped and resized to a square of 24 by torchvision
as uint8, then transformed as floats. views.json says what was done to which file; views.bin has the values of its
cases one after the other: 16-bit, little endian, interleaved RGB, in 1/8192 above -4.
"""

import io
import json
import pathlib

import numpy
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image

WIDTH, HEIGHT, SIZE = 24, 20, 12
SAME = [5, 4, SIZE, SIZE]  # a crop that needs no resizing
BICUBIC = tv.InterpolationMode.BICUBIC
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "worker/data/tests"


def picture():
    """Gradients with noise on top, and an edge, a gray and a black part."""
    y, x, c = numpy.mgrid[0:HEIGHT, 0:WIDTH, 0:3]
    value = 9 * x + 4 * y * (c + 1) + (x * x * 3 + y * y * 5 + 29 * c) % 61
    value[:, 15:17] = 255 - value[:, 15:17]
    value[6:9, 6:9] = value[6:9, 6:9, :1]
    value[10, 10] = 0
    return (value % 256).astype(numpy.uint8)


def photo(width, height, seed):
    """Noise with the spectrum of photographs (amplitude 1/f), its colours correlated, in front of a bright disc."""
    random = numpy.random.default_rng(seed)
    frequency = numpy.hypot(numpy.fft.fftfreq(height)[:, None], numpy.fft.rfftfreq(width)) * max(width, height)
    noise = numpy.fft.rfft2(random.normal(size=(3, height, width))) / numpy.maximum(frequency, 1) ** 1.1
    noise = numpy.fft.irfft2(noise, s=(height, width))
    noise /= noise.std(axis=(1, 2), keepdims=True)
    colour = numpy.einsum("ij,jyx->yxi", [[0.9, 0.3, 0.1], [0.9, -0.1, -0.1], [0.8, -0.3, 0.4]], noise)
    y, x = numpy.mgrid[0:height, 0:width]
    disc = (x - 0.6 * width) ** 2 + (y - 0.4 * height) ** 2 < (0.2 * height) ** 2
    value = 110 + 50 * colour + disc[:, :, None] * [90, 60, -40]
    return Image.fromarray(value.round().clip(0, 255).astype(numpy.uint8))


def loaded(image, dtype):
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1).to(dtype)


def cropped(image, crop, size):
    left, top, width, height = crop
    view = tv.resized_crop(image, top, left, height, width, [size, size], BICUBIC, antialias=True)
    return view.float().clip(0, 255) / 255


def evaluated(image, short, size):
    view = tv.resize(image, [short], BICUBIC, antialias=True)
    return tv.center_crop(view, [size, size]).float().clip(0, 255) / 255


STEPS = {
    "flip": lambda x, _: tv.horizontal_flip(x),
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
    "grayscale": lambda x, _: tv.rgb_to_grayscale(x, num_output_channels=3),
    "blur5": lambda x, sigma: tv.gaussian_blur(x, [5, 5], [sigma, sigma]),
    "blur11": lambda x, sigma: tv.gaussian_blur(x, [11, 11], [sigma, sigma]),
    "blur23": lambda x, sigma: tv.gaussian_blur(x, [23, 23], [sigma, sigma]),
    "solarize": lambda x, _: tv.solarize(x, 0.5),
    "normalize": lambda x, _: tv.normalize(x, MEAN, STD),
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

PHOTO_SIZE = 24
# Name, sides, quality, chroma subsampling.
PHOTOS = [("420.jpg", 131, 97, 90, "4:2:0"), ("444.jpg", 96, 125, 85, "4:4:4")]
MOST = [7, 4, 118, 88]  # left, top, width, height: of 420.jpg, odd where blocks are not
PHOTO_CASES = [
    ("420.jpg", MOST, []),
    ("420.jpg", [60, 31, 24, 24], []),
    ("420.jpg", [71, 40, 11, 9], []),
    ("420.jpg", [0, 0, 131, 97], []),
    ("444.jpg", [0, 0, 96, 125], []),
    ("444.jpg", [13, 37, 51, 39], []),
    *[("420.jpg", MOST, [(name, argument)]) for name, argument in [
        ("flip", 0), ("brightness", 1.4), ("contrast", 0.6), ("saturation", 1.2), ("hue", 0.1), ("hue", -0.1),
        ("grayscale", 0), ("blur23", 0.1), ("blur23", 0.7), ("blur23", 2.0), ("solarize", 0), ("normalize", 0),
    ]],
    ("420.jpg", [31, 12, 77, 80], [("flip", 0), ("brightness", 1.31), ("contrast", 0.71), ("saturation", 1.15),
                                   ("hue", 0.08), ("blur23", 1.1), ("normalize", 0)]),
    ("420.jpg", [90, 5, 40, 31], [("hue", -0.09), ("saturation", 0.83), ("contrast", 1.37), ("brightness", 0.68),
                                  ("grayscale", 0), ("blur23", 0.4), ("normalize", 0)]),
    ("444.jpg", [3, 11, 90, 107], [("contrast", 1.22), ("hue", 0.03), ("brightness", 1.4), ("saturation", 0.91),
                                   ("solarize", 0), ("normalize", 0)]),
    ("444.jpg", [40, 61, 33, 42], [("flip", 0), ("blur23", 1.7), ("solarize", 0), ("normalize", 0)]),
]
PHOTO_EVALUATION = [("420.jpg", 27), ("444.jpg", 24), ("444.jpg", 40)]


def transformed(view, steps):
    for name, argument in steps:
        view = STEPS[name](view, argument)
    return view.permute(1, 2, 0).flatten()


def values(view):
    return [round(v * 1_000_000) for v in view.tolist()]


def pillow(image, crop):
    left, top, width, height = crop
    part = Image.fromarray(image).crop((left, top, left + width, top + height))
    return numpy.asarray(part.resize((SIZE, SIZE), Image.BICUBIC)).flatten().tolist()


def write_golden():
    image = picture()
    floats = loaded(image, torch.float32)
    golden = {
        "width": WIDTH,
        "height": HEIGHT,
        "size": SIZE,
        "pixels": image.flatten().tolist(),
        "cases": [
            {"crop": c, "steps": s, "values": values(transformed(cropped(floats, c, SIZE), s))} for c, s in CASES
        ],
        "pillow": [{"crop": c, "values": pillow(image, c)} for c, s in CASES if not s],
        "evaluation": [
            {"short": s, "values": values(transformed(evaluated(floats, s, SIZE), []))} for s in (12, 14, 17, 31)
        ],
    }
    text = json.dumps(golden, separators=(",", ":")).replace('{"', '\n{"')
    (FOLDER / "golden.json").write_text(text + "\n")


def write_photos():
    folder = FOLDER / "photos"
    folder.mkdir(exist_ok=True)
    images, stored = {}, []
    for seed, (name, width, height, quality, subsampling) in enumerate(PHOTOS):
        photo(width, height, seed).save(folder / name, quality=quality, subsampling=subsampling, optimize=True)
        decoded = Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB")
        images[name] = loaded(decoded, torch.uint8)
    for name, crop, steps in PHOTO_CASES:
        stored.append(transformed(cropped(images[name], crop, PHOTO_SIZE), steps))
    for name, short in PHOTO_EVALUATION:
        stored.append(transformed(evaluated(images[name], short, PHOTO_SIZE), [("normalize", 0)]))
    fixed = ((torch.cat(stored).double() + 4) * 8192).round()
    assert 0 <= fixed.min() and fixed.max() < 1 << 16
    (folder / "views.bin").write_bytes(fixed.numpy().astype("<u2").tobytes())
    described = {
        "size": PHOTO_SIZE,
        "cases": [{"file": f, "crop": c, "steps": s} for f, c, s in PHOTO_CASES],
        "evaluation": [{"file": f, "short": s} for f, s in PHOTO_EVALUATION],
    }
    text = json.dumps(described).replace('{"file', '\n{"file')
    (folder / "views.json").write_text(text + "\n")


if __name__ == "__main__":
    write_golden()
    write_photos()
