"""What `efface.evaluate` costs beside the same study on the command line, and how long `import efface` takes.

    python scripts/bench_evaluate.py [--images 500] [--rounds 5] [--quick]

Both run in a process of their own with one thread, on made-up images and a network without training, and measure MoRF
and LeRF of three methods. CPU seconds, peers alternated; the ratio is the median over rounds of the two beside each
other. Goals: at most 1.03, and `import efface` in less than 0.1 s.

`--quick` takes 16 images and one round. About five minutes without it.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RATIO, SECONDS = 1.03, 0.1
_COMPILED = Path(tempfile.gettempdir()) / "efface-compiled"
MODULE = """
import torch
from efface.models.resnet import resnet8
from efface.base.types import Split


def images(count):
    torch.manual_seed(0)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 10


def data(count):
    return {"test": Split(*images(count))}


def network():
    torch.manual_seed(1)
    return resnet8(num_classes=10)
"""
STUDY = """
out: {out}
data: {{call: made_up.data, kwargs: {{count: {count}}}}}
model: made_up.network
fit: null
attribution_methods:
  - {{name: random, method: random}}
  - {{name: gradient, method: gradient}}
  - {{name: integrated_gradients, method: integrated_gradients}}
  - {{name: grad_cam, method: grad_cam}}
post: [channel_sum]
metrics: [morf, lerf]
executor: serial
threads: 1
device: cpu
"""
CALL = """
import efface
from made_up import images, network
pictures, labels = images({count})
efface.evaluate(
    network().eval(), pictures, labels, ["gradient", "integrated_gradients", "grad_cam"], ["morf", "lerf"],
    out={out!r}, device="cpu", threads=1,
)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="16 images, one round")
    options = parser.parse_args()
    count, rounds = (16, 1) if options.quick else (options.images, options.rounds)
    imports = [seconds_of([sys.executable, "-c", "import efface"], Path.cwd()) for _ in range(rounds)]
    bare = [seconds_of([sys.executable, "-c", "pass"], Path.cwd()) for _ in range(rounds)]
    alone = statistics.median(imports) - statistics.median(bare)
    print(f"import efface: {alone:.3f} s of CPU beside an empty Python (goal {SECONDS:g})")
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "made_up.py").write_text(MODULE)
        for one in range(rounds):
            (folder / "study.yml").write_text(STUDY.format(out=folder / f"command-{one}", count=count))
            (folder / "call.py").write_text(CALL.format(out=str(folder / f"call-{one}"), count=count))
            ways = {
                "command": [sys.executable, "-m", "efface", "measure", "study.yml"],
                "call": [sys.executable, "call.py"],
            }
            order = list(ways.items())[:: 1 if one % 2 else -1]
            spent = {way: seconds_of(command, folder) for way, command in order}
            ratios.append(spent["call"] / spent["command"])
            print(f"round {one}: call {spent['call']:.1f} s, command {spent['command']:.1f} s, {ratios[-1]:.3f}")
    print(f"evaluate beside the command line, {count} images: {statistics.median(ratios):.3f} (goal {RATIO:g})")


def seconds_of(command: list[str], folder: Path) -> float:
    """Return the CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    source = str(Path(__file__).parent.parent / "src")
    paths = os.pathsep.join([source, str(folder)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "PYTHONPYCACHEPREFIX": str(_COMPILED)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's modules are compiled once, not in each command
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
