"""Golden outputs of the draws, and of what is written to files and read from them."""

import dataclasses

import numpy as np
import torch

from efface.base import draws
from efface.stages.run.inputs import split_digest
from efface.store.arrays import (
    StoredArray,
    create_file,
    digest,
    digest_sample,
    open_file,
    pack,
    packed,
    read_rows,
    view_rows,
    write,
)
from efface.store.keys import key
from efface.store.maps import MapStore, MapWriter, finished_rows, partial_path
from efface.store.results import Results, Score
from efface.store.tensors import learnt_digest, read_learnt, write_learnt
from numerics import inputs
from numerics.table import golden


@golden("draws")
def _draws():
    seeds = draws.seeds_of("a text", torch.tensor([0, 1, 2, 7, 1000]))
    with draws.seeded(11):
        foreign = {"torch": torch.rand(3), "numpy": np.random.rand(3)}  # noqa: NPY002  what older code draws from
    many = draws.uniform(seeds[:2], (40_000,))
    return {
        "seeds_of": seeds,
        "seed_of": draws.seed_of("a text"),
        "uniform": draws.uniform(seeds, (3, 2)),
        "normal": draws.normal(seeds, (7,)),
        "normal_even": draws.normal(seeds, (2, 4)),
        "keys": draws.keys(seeds, 4),
        "fold": torch.stack([draws.fold(seeds, number) for number in (-2, -1, 0, 1, 5)]),
        "beyond_a_piece": many[:, ::999],
        "mean": many.mean(1),
        "one_seed": draws.uniform(seeds[3:4], (4,)),
    } | foreign


@golden("store")
def _store():
    return _rows() | _maps() | _results() | _digests() | _learnt()


def _rows():
    path, block = inputs.folder() / "rows.h5", np.arange(60, dtype=np.float32).reshape(10, 2, 3)
    create_file(path, {"a": ((10, 2, 3), np.float32), "b": ((4,), np.int64)}, {"what": "rows"})
    with path.open("r+b", buffering=0) as file:
        write(file, StoredArray(path, "a"), 3, block[:4])
        write(file, StoredArray(path, "b"), 1, np.array([8, 9]))
    order = torch.tensor([5, 0, 3, 3, 6])
    with open_file(path) as file:
        read, said = file["a"][:], str(file.attrs["what"])
    tensor = torch.from_numpy(block)
    return {
        "written": read,
        "written_b": StoredArray(path, "b").numpy(),
        "taken": read_rows(StoredArray(path, "a"), order),
        "taken_from_memory": read_rows(tensor, order),
        "looked": view_rows(tensor, torch.arange(2, 6)),
        "looked_backwards": view_rows(tensor, torch.tensor([5, 4, 3])),
        "looked_with_a_gap": view_rows(tensor, torch.tensor([2, 4, 4, 5])),
        "looked_from_a_file": view_rows(StoredArray(path, "a"), torch.tensor([3, 4, 5])),
        "attribute": said,
    }


def _maps():
    where, rows, classes = inputs.folder(), inputs.maps(5, channels=2), torch.tensor([3, 1, 0, 2, 2])
    path = where / "m.h5"
    writer = MapWriter(path, {"score": "maps"}, classes, rows[0])
    writer.write(0, rows[:2])
    writer.abandon()
    before = finished_rows(partial_path(path))
    again = MapWriter(path, {"score": "maps"}, classes, rows[0])
    resumed = again.done.copy()
    again.write(2, rows[2:])
    again.close()
    held = MapStore(path, {"score": "maps"}, 5)
    held.verify()
    drawn = inputs.store(inputs.seeds(5), "seeds")
    with open_file(path) as file:
        sums, flags = file["crc"][:], file["done"][:]
    return {
        "maps_taken": held.take(torch.tensor([4, 0, 2])),
        "maps_targets": held.targets,
        "checksums": sums,
        "flags": flags,
        "resumed": resumed,
        "finished": before,
        "kind": held.kind,
        "seeds_taken": drawn.take(torch.tensor([3, 1])),
        "seeds_kind": drawn.kind,
    }


def _results():
    where, nan = inputs.folder(), float("nan")
    score = Score({"a": np.array([1.0, nan, 2.5, 4.0]), "b": np.array([True, False, True, True])})
    nothing = Score({"a": np.array([nan, nan], np.float32)})
    written = Results(where)
    written.append({"key": "one", "x": 1}, Score({"a": np.array([9.0, 9.0])}))
    written.append({"key": "one", "x": 2}, score)
    written.append({"key": "two"}, nothing)
    with (where / "results.jsonl").open("ab") as file:
        file.write(b'{"key": "torn')
    read = Results(where)
    return {
        "line": str(sorted((name, value) for name, value in read.records["one"].items() if name != "digest")),
        "nothing": str(
            sorted(((name, value) for name, value in read.records["two"].items() if name != "digest"), key=str)
        ),
        "keys": str(sorted(read.records)),
        "values_a": read.score("one").values["a"],
        "values_b": read.score("one").values["b"],
        "values_nothing": read.score("two").values["a"],
        "mean": score.mean("a"),
        "mean_b": score.mean("b"),
        "n": score.n,
        "is_there": [name in read for name in ("one", "two", "torn")],
    }


def _digests():
    images = inputs.stored(5, 9)
    path = inputs.folder() / "p.h5"
    held = pack(path, "images", tuple(images.shape), (part.numpy() for part in images.split(2)), {"mark": "m"})
    splits = inputs.data()
    return {
        "key": key({"b": [1, 2.5, None], "a": {"z": "text", "c": True}}),
        "digest_of_memory": digest(images),
        "digest_of_a_file": digest(held),
        "sample": digest_sample(held),
        "packed": packed(path, "images", {"mark": "m"}).numpy(),
        "packed_of_another": packed(path, "images", {"mark": "other"}) is None,
        "split": split_digest(splits["train"]),
        "split_without": split_digest(dataclasses.replace(splits["train"], masks=None, validation=None)),
    }


def _learnt():
    path = inputs.folder() / "l.h5"
    write_learnt(path, {"a": inputs.normal(1, 2, 3), "n": torch.tensor(4), "none": torch.zeros(0, 3)})
    read = read_learnt(path)
    shapes = str({name: tuple(each.shape) for name, each in read.items()})
    return {
        "learnt": read["a"],
        "learnt_number": read["n"],
        "learnt_shapes": shapes,
        "learnt_digest": learnt_digest(path),
    }
