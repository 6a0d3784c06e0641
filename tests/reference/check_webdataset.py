#!/usr/bin/env python3
"""Reads shards of `worker pack` with the `webdataset` package, and writes what it read as shards of its own.

    check_webdataset.py DIR OUT

DIR is a packed data set; OUT gets tars of `webdataset.ShardWriter`, in the same order. What lockstep then finds in OUT
must be what it put into DIR: `worker/data/tests/webdataset.rs` compares them. Exit codes: 0 done, 1 a sample is not
one image with one class, or there are not as many as the manifest says.
"""

import argparse
import json
import sys
from pathlib import Path

import webdataset

IMAGES = {"jpg", "png"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    manifest = json.loads((arguments.data / "manifest.json").read_text())
    shards = [str(arguments.data / shard["file"]) for shard in manifest["shards"]]
    arguments.out.mkdir()
    count = 0
    with webdataset.ShardWriter(str(arguments.out / "part-%06d.tar"), maxcount=7, verbose=0) as writer:
        for sample in webdataset.WebDataset(shards, shardshuffle=False):
            endings = {ending for ending in sample if not ending.startswith("__")}
            image = endings & IMAGES
            if len(image) != 1 or endings != image | {"cls"}:
                print(f"{sample['__key__']} has {sorted(endings)}, expected one image and cls")
                return 1
            ending = image.pop()
            writer.write({"__key__": sample["__key__"], ending: sample[ending], "cls": int(sample["cls"])})
            count += 1
    print(f"webdataset {webdataset.__version__} read and wrote {count} samples")
    return 0 if count == manifest["samples"] else 1


if __name__ == "__main__":
    sys.exit(main())
