"""Batches of erased images by row number, from a table on the device or read from files in a second thread.

Both give the same bits: an erased image depends only on its own row, and it has 8 bits.
"""

import queue
import threading
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from efface.base.types import StoredImages

Gather = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Function: row numbers -> image rows and map (or rank) rows of these numbers. None if nothing is erased."""
Prepare = Callable[[Tensor, Tensor | None, Tensor, int], StoredImages]
"""Function: image rows, map rows, row numbers, epoch -> network input (padded, 8 bits)."""
Batches = Callable[[Tensor, int, int], Iterator[StoredImages]]
"""Function: row numbers, batch size, epoch -> batches in this order."""


def resident(count: int, gather: Gather, prepare: Prepare, *, block: int = 1024, redrawn: bool = False) -> Batches:
    """Prepare all `count` rows once, keep them as one 8-bit tensor, and index this tensor.

    block: images prepared at once. It should fill the device and stay small beside the table.
    redrawn: prepare the table again for each epoch (for rankings that change while training).
    """
    table: dict[int, Tensor] = {}

    def prepared(epoch: int) -> Tensor:
        key = epoch if redrawn else 0
        if key not in table:
            table.clear()
            whole: Tensor | None = None
            for indices in torch.arange(count).split(block):
                part = prepare(*gather(indices), indices, key)
                if whole is None:  # written in place: the table exists only once in memory
                    whole = torch.empty(count, *part.shape[1:], dtype=torch.uint8, device=part.device)
                whole[indices[0] : indices[-1] + 1] = part
            assert whole is not None
            table[key] = whole
        return table[key]

    def batches(indices: Int[Tensor, " n"], size: int, epoch: int) -> Iterator[StoredImages]:
        images = prepared(epoch)
        for batch in indices.to(images.device).split(size):
            yield images.index_select(0, batch)

    return batches


def streamed(gather: Gather, prepare: Prepare, device: torch.device, *, redrawn: bool = False) -> Batches:
    """Read the rows of the next batches from their files in a thread while the device works on the current batch."""

    def batches(indices: Int[Tensor, " n"], size: int, epoch: int) -> Iterator[StoredImages]:
        ahead: queue.Queue[tuple[Tensor, Tensor | None, Tensor] | BaseException | None] = queue.Queue(maxsize=2)
        done = threading.Event()

        def read() -> None:
            try:
                for batch in indices.cpu().split(size):
                    if done.is_set():
                        return
                    images, maps = gather(batch)
                    ahead.put((_to(images, device), None if maps is None else _to(maps, device), batch))
                ahead.put(None)
            except BaseException as error:  # noqa: BLE001  the waiting thread raises it
                ahead.put(error)

        reader = threading.Thread(target=read, name="efface-gather", daemon=True)
        reader.start()
        try:
            while (item := ahead.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield prepare(*item, epoch if redrawn else 0)
        finally:
            done.set()
            while reader.is_alive():  # a reader that waits for a free place would never end
                try:
                    ahead.get(timeout=0.05)
                except queue.Empty:
                    continue

    return batches


def _to(indices: Tensor, device: torch.device) -> Tensor:
    return (
        indices.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda" and not indices.is_cuda
        else indices.to(device)
    )
