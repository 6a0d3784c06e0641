"""Lockstep's optimizer step beside a plain PyTorch one, in turn, in one run: median times and their ratios.

    python bench_step.py --worker target/release/worker --arch resnet50 --size 224 --batch 8

Each round runs `worker bench step` and this file's own PyTorch step once per setting, each in a process of its
own, so that whatever else the machine does meets both. Both see random images; no input is measured.
"""

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

# Name, channels-last, bf16.
PEERS = [("f32", False, False), ("f32 channels-last", True, False), ("bf16 channels-last", True, True)]
# Name, further arguments of `worker bench step`.
OURS = [
    ("f32", ["--dtype", "f32"]),
    ("f32 recompute", ["--dtype", "f32", "--set", "model.recompute=true"]),
    ("bf16", ["--dtype", "bf16"]),
    ("bf16 recompute", ["--dtype", "bf16", "--set", "model.recompute=true"]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", default="target/release/worker", help="the worker program")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="side of the views in pixels")
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0; there PyTorch's step is DistributedDataParallel's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="times that every setting is run")
    parser.add_argument("--steps", type=int, default=3, help="steps of one run, after two that do not count")
    parser.add_argument("--skip-bf16", action="store_true", help="for processors that only emulate bf16")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", nargs=2, metavar=("CHANNELS_LAST", "BF16"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        print(json.dumps(peer(args, *[value == "True" for value in args.peer])))
        return
    report(args, *measure(args))


def measure(args):
    """Seconds of a step and peak MiB by setting, of Lockstep and of PyTorch; one entry per round."""
    ours, peers = {}, {}
    sizes = [f"--{key}={getattr(args, key)}" for key in ("arch", "size", "batch", "threads", "steps", "device")]
    for done in range(args.rounds):
        print(f"round {done + 1} of {args.rounds}", file=sys.stderr)
        for name, further in OURS:
            if not (args.skip_bf16 and "bf16" in name):
                run = [args.worker, "bench", "step", "--json", *sizes, *further]
                found = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)
                ours.setdefault(name, []).append((found["step_seconds"], found["peak_memory_mib"]))
        for name, channels_last, bf16 in PEERS:
            if not (args.skip_bf16 and bf16):
                run = [sys.executable, __file__, *sizes, "--peer", str(channels_last), str(bf16)]
                found = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)
                peers.setdefault(name, []).append(tuple(found))
    return ours, peers


def report(args, ours, peers):
    def middle(runs):
        return [statistics.median(column) for column in zip(*runs)]

    figures = {
        "settings": {key: getattr(args, key) for key in ("arch", "size", "batch", "threads", "rounds", "steps", "device")},
        "lockstep": {name: middle(runs) for name, runs in ours.items()},
        "pytorch": {name: middle(runs) for name, runs in peers.items()},
    }
    if args.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{args.arch}, {args.size} px, batch {args.batch}, {args.device}, {args.threads} threads, median of {args.rounds}")
    for program in ("pytorch", "lockstep"):
        for name, (seconds, memory) in figures[program].items():
            print(f"  {program:<9} {name:<20} {seconds * 1e3:8.0f} ms {args.batch / seconds:8.2f} images/s {memory:7.0f} MiB")
    print("PyTorch's time / Lockstep's, and Lockstep's peak memory / PyTorch's:")
    for name, (seconds, memory) in figures["lockstep"].items():
        for peer_name, (peer_seconds, peer_memory) in figures["pytorch"].items():
            print(f"  {name:<20} against {peer_name:<20} {peer_seconds / seconds:6.2f}x {memory / peer_memory:6.2f}x")


def peer(args, channels_last, bf16):
    """Median seconds of a step in plain PyTorch, and the peak MiB of this process, on the host."""
    import torch
    import torchvision
    from torch import nn
    from torch.nn import functional as F

    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    def head(inputs):
        return nn.Sequential(nn.Linear(inputs, 4096), nn.BatchNorm1d(4096), nn.ReLU(True), nn.Linear(4096, 256, bias=False))

    encoder = torchvision.models.get_model(args.arch)
    features, encoder.fc = encoder.fc.in_features, nn.Identity()
    online, predictor = nn.Sequential(encoder, head(features)), head(256)
    target = copy.deepcopy(online).requires_grad_(False)
    order = torch.channels_last if channels_last else torch.contiguous_format
    online.to(device, memory_format=order)
    target.to(device, memory_format=order)
    predictor.to(device)

    class Predictions(nn.Module):
        """Both views in one call, as DistributedDataParallel wants it."""

        def __init__(self):
            super().__init__()
            self.online, self.predictor = online, predictor

        def forward(self, views):
            return [self.predictor(self.online(view)) for view in views]

    model = Predictions()
    if on_gpu:
        torch.cuda.set_device(device)
        meeting = tempfile.NamedTemporaryFile()
        torch.distributed.init_process_group("nccl", init_method=f"file://{meeting.name}", rank=0, world_size=1)
        model = nn.parallel.DistributedDataParallel(model, device_ids=[device.index], broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def regression(prediction, projection):
        return 2 - 2 * F.cosine_similarity(prediction.float(), projection.float(), dim=-1)

    times = []
    for _ in range(2 + args.steps):
        views = [torch.randn(args.batch, 3, args.size, args.size, device=device).contiguous(memory_format=order) for _ in "12"]
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            predictions = model(views)
            with torch.no_grad():
                projections = [target(view) for view in views]
            loss = (regression(predictions[0], projections[1]) + regression(predictions[1], projections[0])).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(target.parameters(), online.parameters()):
                old.lerp_(new, 0.01)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    if on_gpu:
        torch.distributed.destroy_process_group()
    return statistics.median(times[2:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
