"""A process that computes golden outputs with a piece of efface changed in memory, each in a fork of its own.

It has imported what efface imports, but nothing of efface, so that a fork starts clean and in milliseconds. It reads a
mutation's number and a word from each line of its input. It answers with one line of JSON: for `numbers` what
`numerics.compare` says, for `keys` the keys of a small study.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).parent
PRELOADED = (
    *("torch", "torchvision", "numpy", "scipy.stats", "scipy.ndimage", "pydantic", "h5py", "yaml", "jaxtyping"),
    *("pandas", "tqdm", "skimage.segmentation", "sklearn.cluster", "sklearn.datasets", "matplotlib", "PIL.Image"),
    *("captum.attr", "zennit.composites", "torch.optim.lr_scheduler"),
)


class Changed(importlib.abc.MetaPathFinder):
    """Serves the changed source of one file, and finds all else as ever."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source = path, source

    def find_spec(self, name, path=None, target=None):
        """The module's usual place, with a loader that hands out the changed source where it is the changed file."""
        if name.partition(".")[0] != "efface":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None and Path(spec.origin) == self.path:
            spec.loader = Source(name, spec.origin, self.source)
        return spec


class Source(importlib.machinery.SourceFileLoader):
    """A loader of a given source; no compiled file is read or written."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname):
        """The given source, compiled."""
        return compile(self.source, self.path, "exec", dont_inherit=True)


def changed(number: int, what: str) -> object:
    """What the golden outputs of a mutation say once it is made, or the keys of a study; -1 makes none."""
    from numerics.mutations import MUTATIONS, mutated

    if number >= 0:
        sys.meta_path.insert(0, Changed(*mutated(MUTATIONS[number])))
    if what == "keys":
        from numerics.keyed import keys

        return keys()
    from numerics import compare

    return compare(MUTATIONS[number].names)


def answer(number: int, what: str, out: int) -> None:
    """In a fork: write what it says, and end."""
    try:
        said = json.dumps({"said": changed(number, what)})
    except BaseException:  # noqa: BLE001  the test shows what went wrong
        said = json.dumps({"failed": traceback.format_exc()})
    os.write(out, said.encode() + b"\n")
    os._exit(0)


def main() -> None:
    """Answer until the input ends."""
    out = os.dup(1)
    os.dup2(2, 1)  # what the computations print is no answer
    sys.path[0:0] = [str(HERE.parent)]
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            answer(int(line.split()[0]), line.split()[1], out)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
