"""A study that takes a second; the program in a process of its own, which need not import torch anew."""

import hashlib
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import yaml

from efface.study.study import Study, check

# The user's own modules: they lie beside the study, which names what is in them by dotted path.
MODULES = {
    "net": """
from torch import nn


def network(classes: int = 4):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(96, classes)
    )
""",
    "mine": """
def brightness(model, images, targets, *, gain: float = 1.0):
    return gain * images.mean(1) * (1 + model(images).gather(1, targets[:, None])[:, :, None].detach())
""",
    "pair": """
def two(model, images, targets):
    return {"red": images[:, 0], "green": images[:, 1]}
""",
}

STUDY = {
    "out": "run",
    "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 48, "n_test": 24, "size": 16}},
    "model": {"call": "net.network"},
    "fit": {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 1e-2}},
        "crop": 1,
    },
    "attribution_methods": [
        {"name": "random", "method": "efface.methods.control.random"},
        {"name": "mine", "method": "mine.brightness"},
        {"name": "pair", "method": "pair.two", "outputs": ["red", "green"]},
    ],
    "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
    "metrics": ["morf", "roar"],
    "fractions": [0.3, 0.7],
    "repeats": 2,
    "max_batch": 16,
    "executor": "efface.execute.serial",
}


@dataclass(frozen=True)
class Ended:
    """How a call of the program ended: its exit status (negative: the signal), what it wrote."""

    code: int
    out: str
    err: str


def write_study(folder: Path, modules: dict[str, str] | None = None, **changes) -> Path:
    """The study, with keys replaced (None: left out), and the user's modules beside it."""
    for name, text in (MODULES | (modules or {})).items():
        (folder / f"{name}.py").write_text(text)
    tree = {key: value for key, value in (STUDY | changes).items() if value is not None}
    (folder / "study.yml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return folder / "study.yml"


def checked(folder: Path, tree: dict) -> Study:
    """A study from the tree that its file would hold; the file itself is not written."""
    return check(yaml.safe_load(yaml.safe_dump(tree)), folder / "study.yml")


def start(folder: Path, *words: str, kill_at: int = 0, file_limit: int = 0):
    """`efface WORDS` in `folder`, as a process of its own group.

    kill_at: kill -9 at its so-manieth touch of a file of the run. file_limit: bytes that a file may have.
    """
    process = _forks().Process(target=_child, args=(folder, words, kill_at, file_limit))
    process.start()
    return process


def ended(process, folder: Path) -> Ended:
    """Wait for a started program."""
    process.join(300)
    assert process.exitcode is not None, "the program hangs"
    stem = folder / f".said-{process.pid}"
    return Ended(process.exitcode, stem.with_suffix(".out").read_text(), stem.with_suffix(".err").read_text())


def efface(folder: Path, *words: str, **how) -> Ended:
    """`efface WORDS` in `folder`, to its end."""
    return ended(start(folder, *words, **how), folder)


def files(folder: Path) -> dict[str, tuple[int, str]]:
    """When each file below was last written, and a digest of its bytes."""
    found = (each for each in sorted(folder.rglob("*")) if each.is_file())
    return {
        str(each.relative_to(folder)): (each.stat().st_mtime_ns, hashlib.sha256(each.read_bytes()).hexdigest())
        for each in found
    }


def _forks():
    """Processes forked from a server that has imported everything once: each starts clean, in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "pytest",
            "efface.stages.all",
            "efface.stages.status",
            "efface.data.patches",
            "matplotlib.backends.backend_pdf",
            "scipy.stats",
            "efface.stages.page.report_data",
            "torch._dynamo",  # an optimizer imports it, which takes seconds
            "small.warm",
        ]
    )
    path = os.environ.get("PYTHONPATH", "")
    tests = str(Path(__file__).parents[1])
    changes = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tests}{os.pathsep}{path}", "PYTHONPATH_BEFORE": path}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    return context


def _child(folder: Path, words: tuple[str, ...], kill_at: int, file_limit: int) -> None:
    os.setsid()
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and hand that on
    stem = folder / f".said-{os.getpid()}"
    for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        with stem.with_suffix(suffix).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    if file_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python itself does
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if kill_at:
        _kill_at(kill_at, str(folder / "run"))
    from efface.__main__ import main

    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001  what a user would see as a traceback
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _kill_at(count: int, folder: str) -> None:
    """kill -9 at the so-manieth opening (to write), renaming, removal or flush of a file."""
    import h5py

    left = [count]

    def touched() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def listen(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wa+x")
        if (writes or event in ("os.rename", "os.remove")) and str(arguments[0]).startswith(("run", folder)):
            name = Path(arguments[0]).name.lstrip(".")
            if not name.startswith(("worker-", "progress.")):  # written as time goes by
                touched()

    def flush(file) -> None:
        touched()
        _flush(file)
        touched()

    _flush, h5py.File.flush = h5py.File.flush, flush
    sys.addaudithook(listen)
