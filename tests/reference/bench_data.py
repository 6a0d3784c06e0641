"""Lockstep's input pipeline beside those that people use, in turn, in one run: images/s per core and their ratios.

    python bench_data.py --worker target/release/worker [--images DIR]

An image is JPEG bytes, decoded and made into two views of 224 pixels by the augmentations of BYOL, normalized, as
float32. Every peer is a process with one thread, which goes through the folder once per turn; Lockstep's turn is a
process of `worker bench data`. Images per second of CPU time count, so that whatever else the machine does takes
little from anyone. A peer that cannot be imported is left out, with a line that says why.
"""

import argparse
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE, BATCH = 224, 50
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
SIGMA, TAPS = (0.1, 2.0), 23
# Of blur and of solarizing, for view one and two.
ODDS = [(1.0, 0.0), (0.1, 0.2)]
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
# Rounds inside one turn of Lockstep, which takes a tenth of the others' time for one.
OUR_ROUNDS = 15


def torchvision_tensors():
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    torch.set_num_threads(1)

    def view(blur, solarize):
        return v2.Compose([
            v2.RandomResizedCrop(SIZE, AREA, RATIO, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(TAPS, SIGMA)], blur),
            v2.RandomSolarize(128, solarize),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ])

    views = [view(*odds) for odds in ODDS]

    def run(files):
        images = [decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB) for file in files]
        return [torch.stack([view(image) for image in images]) for view in views]

    return run


def torchvision_pil():
    import torch
    from PIL import Image, ImageFilter
    from torchvision.transforms import v2

    torch.set_num_threads(1)

    # Pillow's own blur, as most ports of BYOL use it: torchvision's turns the image into a tensor and back.
    def blurred(image):
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*SIGMA)))

    def view(blur, solarize):
        return v2.Compose([
            v2.RandomResizedCrop(SIZE, AREA, RATIO, v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([blurred], blur),
            v2.RandomSolarize(128, solarize),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ])

    views = [view(*odds) for odds in ODDS]

    def run(files):
        images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        return [torch.stack([view(image) for image in images]) for view in views]

    return run


def albumentations():
    import albumentations as A
    import cv2
    import numpy

    cv2.setNumThreads(0)

    def view(blur, solarize):
        return A.Compose([
            A.RandomResizedCrop((SIZE, SIZE), AREA, RATIO, cv2.INTER_CUBIC),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur((TAPS, TAPS), SIGMA, p=blur),
            A.Solarize((0.5, 0.5), p=solarize),
            A.Normalize(MEAN, STD),
            A.ToTensorV2(),
        ])

    views = [view(*odds) for odds in ODDS]

    def run(files):
        images = [cv2.imdecode(numpy.frombuffer(file, numpy.uint8), cv2.IMREAD_COLOR_RGB) for file in files]
        return [numpy.stack([view(image=image)["image"].numpy() for image in images]) for view in views]

    return run


def dali(decode_twice=False, approximate=False):
    """`decode_twice`: of each view only its crop; `approximate`: a faster inverse transform and chroma, a shorter blur."""
    import numpy
    from nvidia.dali import fn, pipeline_def, types

    fed = []
    decoding = {"use_fast_idct": True, "jpeg_fancy_upsampling": False} if approximate else {}
    window = {} if approximate else {"window_size": TAPS}
    crop = {"random_area": AREA, "random_aspect_ratio": RATIO}
    resize = {"size": (SIZE, SIZE), "interp_type": types.INTERP_CUBIC, "antialias": True}

    def chance(probability):
        return fn.random.coin_flip(probability=probability, dtype=types.BOOL)

    def uniform(low, high):
        return fn.random.uniform(range=(low, high))

    def view(encoded, image, blur, solarize):
        if decode_twice:
            part = fn.decoders.image_random_crop(encoded, device="cpu", output_type=types.RGB, **crop)
            x = fn.resize(part, **resize)
        else:
            x = fn.random_resized_crop(image, **crop, **resize)
        if chance(0.8):
            x = fn.color_twist(x, brightness=uniform(0.6, 1.4), contrast=uniform(0.6, 1.4),
                               saturation=uniform(0.8, 1.2), hue=uniform(-36, 36))
        if chance(0.2):
            x = fn.saturation(x, saturation=0.0)
        # What always or never happens needs no splitting of the batch.
        if blur == 1 or chance(blur):
            x = fn.gaussian_blur(x, sigma=uniform(*SIGMA), **window)
        if solarize > 0 and chance(solarize):
            bright = x >= types.Constant(128, dtype=types.UINT8)
            x = bright * (types.Constant(255, dtype=types.UINT8) - x) + (bright ^ True) * x
        return fn.crop_mirror_normalize(x, dtype=types.FLOAT, output_layout="CHW",
                                        mirror=fn.random.coin_flip(probability=0.5),
                                        mean=[255 * m for m in MEAN], std=[255 * s for s in STD])

    @pipeline_def(num_threads=1, device_id=None, enable_conditionals=True, prefetch_queue_depth=1, exec_dynamic=False)
    def pipeline():
        encoded = fn.external_source(lambda: [numpy.frombuffer(file, numpy.uint8) for file in fed],
                                     dtype=types.UINT8, no_copy=True, batch=True)
        image = None
        if not decode_twice:
            image = fn.decoders.image(encoded, device="cpu", output_type=types.RGB, **decoding)
        return tuple(view(encoded, image, *odds) for odds in ODDS)

    built = []

    def run(files):
        fed[:] = files
        if not built:
            built.append(pipeline(batch_size=len(files)))
            built[0].build()
        return [numpy.asarray(views.as_tensor()) for views in built[0].run()]

    return run


PEERS = {
    "torchvision v2, tensors": torchvision_tensors,
    "torchvision, Pillow": torchvision_pil,
    "DALI CPU": dali,
    "DALI CPU, decoding crops": lambda: dali(decode_twice=True),
    "DALI CPU, approximate": lambda: dali(approximate=True),
    "albumentations (no antialiasing)": albumentations,
}


def serve(name, folder):
    """Goes through the images whenever a line comes; answers with how many there were and seconds of CPU time."""
    random.seed(1)
    run = PEERS[name]()
    files = [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".jpg"]
    batch = min(BATCH, len(files))
    views = run(files[:batch])
    assert all(tuple(view.shape) == (batch, 3, SIZE, SIZE) for view in views)
    print("ready", flush=True)
    for _ in sys.stdin:
        before = cpu_seconds()
        starts = range(0, len(files) - batch + 1, batch)
        for start in starts:
            run(files[start:start + batch])
        print(json.dumps([len(starts) * batch, cpu_seconds() - before]), flush=True)


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Peer:
    def __init__(self, name, folder):
        command = [sys.executable, __file__, "--peer", name, "--images", str(folder)]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, env={**os.environ, **ONE_THREAD, "NO_ALBUMENTATIONS_UPDATE": "1"})
        self.ready = self.process.stdout.readline().strip() == "ready"
        if not self.ready:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()
            print(f"left out: {name}: {said[-1] if said else 'it ended'}", file=sys.stderr)

    def turn(self):
        """Images per second of CPU time."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        images, seconds = json.loads(self.process.stdout.readline())
        return images / seconds

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def lockstep(worker, folder, *options, threads=1, processes=1):
    """What `worker bench data` found, in as many processes at once."""
    command = [worker, "bench", "data", "--json", "--images", str(folder), f"--size={SIZE}", f"--threads={threads}",
               f"--rounds={OUR_ROUNDS}", *options]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    found = [json.loads(process.communicate()[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    return found


def measure(args, folder, cache):
    """Images/s by peer and images/s of Lockstep by way of running; one entry per round."""
    peers = {name: Peer(name, folder) for name in PEERS if args.only in name}
    peers = {name: peer for name, peer in peers.items() if peer.ready}
    rates, ours = {name: [] for name in peers}, {"core": [], "wall": [], "threads": [], "processes": [], "entropy": [],
                                                  "cached": [], "cached_share": [], "cached_to_shards": []}
    for done in range(args.rounds):
        print(f"round {done + 1} of {args.rounds}", file=sys.stderr)
        for name, peer in peers.items():
            rates[name].append(peer.turn())
        [one] = lockstep(args.worker, folder)
        [cached] = lockstep(args.worker, folder, f"--coefficient-cache={cache}")
        [threads] = lockstep(args.worker, folder, threads=2)
        ours["cached"].append(cached["images_per_second_per_core"])
        ours["cached_share"].append(cached["cache"]["share"])
        ours["cached_to_shards"].append(cached["cache"]["bytes_to_shards"])
        ours["core"].append(one["images_per_second_per_core"])
        ours["entropy"].append(one["entropy_microseconds"])
        ours["wall"].append(one["images_per_second"])
        ours["threads"].append(threads["images_per_second"])
        ours["processes"].append(sum(run["images_per_second"] for run in lockstep(args.worker, folder, processes=2)))
    for peer in peers.values():
        peer.end()
    return rates, ours


def report(args, rates, ours):
    middle = {name: statistics.median(values) for name, values in rates.items()}
    found = {name: statistics.median(values) for name, values in ours.items()}
    if args.json:
        print(json.dumps({"peers": middle, "lockstep": found, "rounds": args.rounds}, indent=2))
        return
    print(f"two views of {SIZE} px, one thread, median of {args.rounds} rounds (and their range)")
    rows = [*rates.items(), ("Lockstep", ours["core"]), ("Lockstep, from its coefficient cache", ours["cached"])]
    for name, values in sorted(rows, key=lambda row: statistics.median(row[1])):
        rate = statistics.median(values)
        ratio = f"{found['core'] / rate:6.2f}x, {found['cached'] / rate:.2f}x cached" if name in rates else ""
        print(f"  {name:<36} {rate:7.1f} images/s per core ({min(values):.1f} to {max(values):.1f})  {ratio}")
    print(f"  Lockstep's entropy decoding alone: {found['entropy']:.0f} µs an image")
    print(f"  its cache had {found['cached_share']:.0%} of the images, in {found['cached_to_shards']:.2f} times the bytes")
    print(f"by the clock: one thread {found['wall']:.0f} images/s, two {found['threads']:.0f} "
          f"({found['threads'] / found['wall']:.2f}x), two processes {found['processes']:.0f} "
          f"({found['processes'] / found['wall']:.2f}x)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", default="target/release/worker", help="the worker program")
    parser.add_argument("--images", type=Path, help="folder of .jpg files; without it, some like photographs are made")
    parser.add_argument("--rounds", type=int, default=5, help="turns that everyone has")
    parser.add_argument("--only", default="", help="part of the name of the peers to run")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        serve(args.peer, args.images)
        return
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as cache:
        folder = args.images or Path(made)
        if not args.images:
            subprocess.run([args.worker, "bench", "data", "--make", made], check=True)
        report(args, *measure(args, folder, cache))


if __name__ == "__main__":
    main()
