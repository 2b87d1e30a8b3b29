"""How fast map files are read and written, beside h5py and beside a bare memory map.

    python scripts/bench_maps.py [--maps 20000] [--size 32] [--batch 256]

Random batches and the whole file from a warm page cache, in CPU seconds on one thread; writing in wall seconds, in
blocks as the extract stage writes them, the bare memory map with a sync at its end. Medians of alternated rounds: only
the ratios carry over to other machines. 20,000 maps of 32x32 are 82 MB; under 30 seconds.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from efface.store.maps import MapStore, MapWriter

BLOCK = 1024  # rows that a writer gets at once
PROVENANCE = {"from": "benchmark"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=20_000, help="maps in the file; at least one batch")
    parser.add_argument("--size", type=int, default=32, help="height and width of a map")
    parser.add_argument("--batch", type=int, default=256, help="maps a random batch")
    parser.add_argument("--rounds", type=int, default=5, help="alternated rounds, after one that is not counted")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    maps = torch.randn(max(arguments.maps, arguments.batch), arguments.size, arguments.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report_writes(folder, maps, arguments.rounds)
        report_batches(folder, maps, arguments.batch, arguments.rounds)
        report_whole(folder, maps, arguments.rounds)


def report_writes(folder: Path, maps: Tensor, rounds: int) -> None:
    ways = {"memory map": lambda: write_bare(folder / "maps.raw", maps), "efface": lambda: write(folder, maps)}
    found = alternate(ways, rounds, time.perf_counter)
    print(f"{'writing':<24}{'MB/s':>12}{'of memory map':>16}{'target':>10}")
    for name, seconds in found.items():
        target = ">= 0.8" if name == "efface" else ""
        print(f"{name:<24}{size(maps) / seconds / 1e6:>12,.0f}{found['memory map'] / seconds:>16.2f}{target:>10}")


def report_batches(folder: Path, maps: Tensor, batch: int, rounds: int) -> None:
    """As many batches as one shuffled epoch has."""
    order = torch.randperm(len(maps)).split(batch)
    store = MapStore(folder / "maps.h5", PROVENANCE, len(maps))
    bare = np.memmap(folder / "maps.raw", np.float32, "r", shape=tuple(maps.shape))
    with h5py.File(folder / "maps.h5") as file:
        reads: dict[str, Callable[[Tensor], Tensor]] = {
            "h5py, one by one": functools.partial(by_item, file["maps"]),
            "memory map": lambda rows: torch.from_numpy(np.take(bare, rows.numpy(), axis=0)),
            "efface": store.take,
            "tensor in memory": lambda rows: maps.index_select(0, rows),
        }
        ways = {name: functools.partial(read_all, read, order) for name, read in reads.items()}
        found = alternate(ways, rounds, time.process_time)
    slow, plain = found["h5py, one by one"], found["memory map"]
    print(f"\n{'random batches':<24}{'maps/s':>12}{'over h5py':>12}{'target':>10}{'of memory map':>16}{'target':>10}")
    for name, seconds in found.items():
        h5py_target, plain_target = (">= 10", ">= 0.8") if name == "efface" else ("", "")
        line = f"{name:<24}{len(maps) / seconds:>12,.0f}{slow / seconds:>11.1f}x{h5py_target:>10}"
        print(f"{line}{plain / seconds:>16.2f}{plain_target:>10}")


def report_whole(folder: Path, maps: Tensor, rounds: int) -> None:
    store, every = MapStore(folder / "maps.h5", PROVENANCE, len(maps)), torch.arange(len(maps))
    ways = {"memory copy": maps.clone, "efface": lambda: store.take(every)}
    print(f"\n{'the whole file':<24}{'GB/s':>12}{'target':>10}")
    for name, seconds in alternate(ways, rounds, time.process_time).items():
        print(f"{name:<24}{size(maps) / seconds / 1e9:>12.1f}{'>= 3' if name == 'efface' else '':>10}")


def alternate(ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each way; every round runs them all, the first is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way()
            found[name].append(clock() - started)
    return {name: statistics.median(seconds[1:]) for name, seconds in found.items()}


def write(folder: Path, maps: Tensor) -> None:
    """What the extract stage does: checksums, flags, flushes, a sync and the rename."""
    writer = MapWriter(folder / "maps.h5", PROVENANCE, torch.zeros(len(maps), dtype=torch.int64), maps[0])
    for first in range(0, len(maps), BLOCK):
        writer.write(first, maps[first : first + BLOCK])
    writer.close()


def write_bare(path: Path, maps: Tensor) -> None:
    path.unlink(missing_ok=True)
    array = np.memmap(path, np.float32, "w+", shape=tuple(maps.shape))
    for first in range(0, len(maps), BLOCK):
        array[first : first + BLOCK] = maps[first : first + BLOCK].numpy()
    array.flush()


def read_all(read: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> None:
    """One batch at a time, as a training holds them: kept together, they would measure the memory allocator."""
    for rows in batches:
        read(rows)


def by_item(data: h5py.Dataset, rows: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([data[row] for row in rows.tolist()]))


def size(maps: Tensor) -> int:
    return maps.numel() * maps.element_size()


if __name__ == "__main__":
    main()
