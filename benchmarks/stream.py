"""Tar shards that are streamed: how fast batches come, beside reading the bytes and decoding them alone.

    python benchmarks/stream.py [--images 20000] [--rounds 3] [--folder FOLDER]

Shards of JPEG pictures (64x64, colour, smooth noise) are made in FOLDER and removed in the end. What the system has
kept of them is dropped before each reading.

- sequential: the shards from their beginnings, a megabyte at a time;
- decoded: Pillow alone, from memory, in as many threads as there are cores;
- ours: batches of 256 as training reads them, through a buffer of 1,000.
"""

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import ROOT, report_speeds
from PIL import Image

from vaes.data import webdataset
from vaes.data.batches import StreamBatches

BATCH, SHARDS, SIDE = 256, 20, 64
RATIOS = (("ours", "decoded"), ("ours", "sequential"))


def make(folder: Path, n: int) -> list[bytes]:
    """The shards; the files of the first thousand pictures."""
    rng = np.random.default_rng(0)
    kept = []
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            for i in range(n // SHARDS):
                coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                file = io.BytesIO()
                coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
                info = tarfile.TarInfo(f"{i:06}.jpg")
                info.size = len(file.getvalue())
                archive.addfile(info, io.BytesIO(file.getvalue()))
                if len(kept) < 1000:
                    kept.append(file.getvalue())
    return kept


def forget(folder: Path) -> None:
    """Drop what the system has kept of the shards in memory."""
    for path in folder.glob("*.tar"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sequential(folder: Path, n: int) -> float:
    """Images/s of reading their bytes."""
    block, began = bytearray(2**20), time.perf_counter()
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass
    return n / (time.perf_counter() - began)


def decoded(files: list[bytes], n: int) -> float:
    """Images/s of Pillow alone."""

    def one(content: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1).copy()

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        began = time.perf_counter()
        for _ in pool.map(one, (files[i % len(files)] for i in range(n)), chunksize=32):
            pass
        return n / (time.perf_counter() - began)


def ours(folder: Path, n: int, seed: int) -> float:
    """Images/s of batches, once the buffer is full."""
    splits = webdataset(root=str(folder), streaming=True, seed=seed)
    assert splits.stream is not None
    reader = StreamBatches(splits.train, splits.stream, BATCH, seed)
    reader.read(0)
    forget(folder)
    began = time.perf_counter()
    steps = n // BATCH
    for step in range(1, steps + 1):
        reader.read(step)
    took = time.perf_counter() - began
    reader.close()
    return steps * BATCH / took


def main() -> None:
    """Time all in turn, write the numbers, print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument("--out", type=Path, default=ROOT)
    chosen = parser.parse_args()
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder, n = Path(name), chosen.images // SHARDS * SHARDS
        files = make(folder, n)
        ours(folder, n, seed=0)  # what is looked at first is decoded into the cache
        for number in range(chosen.rounds):
            ways: dict[str, Callable[[], float]] = {
                "sequential": lambda: sequential(folder, n),
                "decoded": lambda: decoded(files, n),
                "ours": lambda: ours(folder, n, seed=number),  # noqa: B023 - called within the round
            }
            for way, measure in ways.items():
                forget(folder)
                speeds.setdefault(way, []).append(measure())
        size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    report_speeds("stream", chosen, speeds, RATIOS, images=n, bytes=size)


if __name__ == "__main__":
    main()
