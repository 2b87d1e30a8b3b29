"""The leaderboard: stored numbers of studies, and the page docs/leaderboard.md that shows them.

    python scripts/leaderboard.py add RUN_FOLDER NAME --study configs/NAME.yml [--changes KEY=VALUE ...]
    python scripts/leaderboard.py page

`add` stores a finished run, and `page` writes the page. `add` copies the study, `report/results.parquet`, a network of
at most 1 MB, and where the numbers come from (commit, command, date, digest of the images) to docs/leaderboard/NAME. It
writes the overrides of the run into the stored study. It refuses a run that is not finished. `efface verify
leaderboard` computes a random sample again.
"""

import argparse
import json
import shlex
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from efface.commands.running import add_current_folder
from efface.report.formats import listed
from efface.stages.page.folders import kept_folder
from efface.stages.run.run import Run
from efface.stages.verify import NETWORK, ORIGIN, RESULTS, STUDY
from efface.study.study import read

ROOT = Path(__file__).parents[1]
BOARD, PAGE = ROOT / "docs" / "leaderboard", ROOT / "docs" / "leaderboard.md"
SMALL = 1_000_000
"""Bytes of a network that is stored beside its numbers."""
MARKS = {"better": "▲", "worse": "▼", "same": "●", "undecided": "○"}
HEAD = """# Leaderboard

Numbers of efface on public data, with the commit and the command that made them. Anybody can check them:

```sh
efface verify leaderboard --rows 20
```

This computes a random sample again, of the studies whose data and weights are there. A number of a network that is not
trained again must agree within 0.0001. A number for which networks are trained must lie in the stored interval.

A line is a method, and a column is a metric. With more metrics than methods it is the other way round. The number is
the one that stands for the curve (area, mean or value). ▲ means better than `random` after the correction of the
study's page, ▼ worse, ● not told apart, ○ that no test holds. ↑ means that higher is better, ↓ lower; a metric without
an arrow describes. The best mean of a metric is bold. A method may have the best mean without being told apart from
others: the stored tables have all intervals. `scripts/leaderboard.py` writes this page from
`docs/leaderboard/*/results.parquet`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = parser.add_subparsers(dest="word", required=True)
    added = words.add_parser("add", help="store a finished run")
    added.add_argument("folder", type=Path)
    added.add_argument("name")
    added.add_argument("--study", type=Path, required=True, help="the study's file, with the paths of a user")
    added.add_argument("--changes", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the study")
    added.add_argument("--board", type=Path, default=BOARD)
    page = words.add_parser("page", help="write the page")
    page.add_argument("--board", type=Path, default=BOARD)
    page.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    add_current_folder()
    if options.word == "add":
        add(options.folder, options.board / options.name, options.study, options.changes)
    else:
        options.out.write_text(page_of(options.board))
        print(f"written: {options.out}")


def add(run: Path, to: Path, study: Path, changes: Sequence[str] = ()) -> None:
    """Store a finished run. SystemExit: it is not finished, or has several runs."""
    runs, _ = kept_folder(run)
    records = [one for several in runs.values() for one in several]
    if len(records) != 1:
        raise SystemExit(f"{run}: has {len(records)} runs; expected one")
    (record,) = records
    if record.open or record.results.failed:
        failed = len(record.results.failed)
        raise SystemExit(f"{run}: {record.open} results are missing, {failed} failed; finish it first")
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "report" / RESULTS, to / RESULTS)
    command = f"efface all {shlex.join([str(study), *changes])}"
    if changes:
        tree = read(study, changes).model_dump(mode="json", exclude_none=True)
        (to / STUDY).write_text(f"# {command}\n" + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    else:
        shutil.copy(study, to / STUDY)
    trained = run / "models" / NETWORK
    if trained.exists() and trained.stat().st_size <= SMALL:
        shutil.copy(trained.resolve(), to / NETWORK)
    commits = sorted({str(row["commit"]) for row in record.results.records.values() if row.get("commit")})
    facts = record.kept.facts
    origin = {
        "commit": listed(commits),
        "command": command,
        "date": max(str(row.get("time", ""))[:10] for row in record.results.records.values()),
        "data": Run(read(run / STUDY)).data_digest,
        "images": facts.data if facts else "",
        "network": facts.network if facts else "",
        "device": facts.device if facts else "",
    }
    (to / ORIGIN).write_text(json.dumps(origin, indent=2, ensure_ascii=False) + "\n")
    print(f"stored: {to}")


def page_of(board: Path) -> str:
    """Return the page of all stored studies."""
    folders = sorted(each.parent for each in board.glob(f"*/{RESULTS}"))
    return "\n".join([HEAD, *(_section(folder) for folder in folders)])


def _section(folder: Path) -> str:
    origin = json.loads((folder / ORIGIN).read_text())
    table = pd.read_parquet(folder / RESULTS, engine="pyarrow")
    title = (yaml.safe_load((folder / STUDY).read_text()).get("x-title") or folder.name).strip()
    facts = f"*{origin['images']}. {origin['network']}. `{origin['command']}`, {origin['date']}, commit "
    facts += f"{origin['commit']}, {origin['device']}. Numbers: `docs/leaderboard/{folder.name}`.*"
    return "\n".join([f"## {title}\n", textwrap.fill(facts, 120, break_on_hyphens=False), "", *_rows(table), ""])


def _rows(table: pd.DataFrame) -> list[str]:
    """Return the lines of a table of methods and metrics, by the first score of each metric."""
    whole = table[table.kind == "summary"]
    whole = whole[whole.method != "network"]
    firsts = whole.drop_duplicates("metric")[["metric", "score"]]
    whole = whole.merge(firsts, on=["metric", "score"])
    gains = table[table.kind == "gain"].merge(firsts, on=["metric", "score"])
    verdicts = {(line.metric, line.method): line.verdict for line in gains.itertuples()}
    metrics = list(firsts.metric)
    values = {(line.metric, line.method): line.value for line in whole.itertuples()}
    best = {metric: _best(group) for metric, group in whole.groupby("metric")}
    methods = list(dict.fromkeys(whole.method))
    better = dict(zip(whole.metric, whole.better, strict=True))
    arrows = {"higher": " ↑", "lower": " ↓"}
    grid = [["method", *(f"`{metric}`{arrows.get(better[metric], '')}" for metric in metrics)]]
    for method in methods:
        cells = []
        for metric in metrics:
            value = values.get((metric, method), np.nan)
            text = "" if np.isnan(value) else f"{value:.3f}"
            text = f"**{text}**" if text and best[metric] == method else text
            cells.append(f"{text} {MARKS.get(verdicts.get((metric, method), ''), '')}".strip())
        grid.append([f"`{method}`", *cells])
    if len(metrics) > len(methods):
        grid = [list(column) for column in zip(*grid, strict=True)]
        grid[0][0] = "metric"
    first, *others = (f"| {' | '.join(cells)} |" for cells in grid)
    return [first, f"|{'---|' * len(grid[0])}", *others]


def _best(group: pd.DataFrame) -> str:
    """Return the method with the best mean; "" if the metric only describes."""
    known = group[group.value.notna()]
    if known.empty or known.better.iloc[0] == "none":
        return ""
    at = known.value.idxmax() if known.better.iloc[0] == "higher" else known.value.idxmin()
    return str(known.method[at])


if __name__ == "__main__":
    main()
