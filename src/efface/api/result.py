"""What a call from Python returns: the table of methods and metrics, the scores of images, the page."""

import base64
import html
import re
import shutil
import sys
import textwrap
import webbrowser
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from efface.report import between
from efface.report.formats import percent
from efface.report.noted import described, note, notes
from efface.report.panels import panels
from efface.report.stats import Curve
from efface.report.table import Panel
from efface.report.verdicts import NARROWEST, printed, verdicts_table
from efface.report.words import VERDICTS
from efface.study.study import Study

_COLUMNS = (
    "metric",
    "score",
    "better",
    "method",
    "value",
    "low",
    "high",
    "gain",
    "gain_low",
    "gain_high",
    "p",
    "rank",
    "verdict",
    "note",
)


class Result:
    """The numbers of a call.

    out: folder of the run. It is removed with the result if the call named none.
    study: the study that was measured.
    failures: sentences on methods and probes that failed.
    cautions: sentences on the network and the labels that a reader must know before the numbers.
    accuracy: share of the images that the network classifies right.
    """

    def __init__(
        self,
        curves: Sequence[Curve],
        accuracy: Curve | None,
        study: Study,
        failures: tuple[str, ...],
        cautions: tuple[str, ...],
        kept: Any,
    ) -> None:
        """kept: what must live as long as the result."""
        self.out, self.study, self.failures, self.cautions = study.out, study, failures, cautions
        self.accuracy = float("nan") if accuracy is None else float(accuracy.values.mean())
        self._curves, self._kept = list(curves), kept
        self._page = self._path.read_bytes() if self._path.is_file() else b""

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each metric and method: the first score of the metric.

        value, low, high: the number of the method's curve (area, mean or value) with its 95 % interval.
        gain: how much better it is than the reference, with its interval; positive is better.
        p: of the gain, corrected for all comparisons of the call. rank: 1 and the number of methods that are shown to
        be better; `<NA>` without one. verdict: in words. note: why a method failed, or on how many images it has no
        value.
        """
        lines = [self._line(panel, row) for panel in self._firsts for row in panel.rows]
        table = pd.DataFrame(lines, columns=list(_COLUMNS))
        numbers = table.select_dtypes("float")
        table[numbers.columns] = numbers + 0.0  # a lower score that is better changes the sign of 0, too
        return table.assign(rank=table["rank"].astype("Int64").replace(0, pd.NA))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row for each metric, score, method, image (or training) and point, with its value."""
        frames = [_long(curve) for curve in self._curves]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @property
    def _path(self) -> Path:
        return self.out / "report" / "report.html"

    @property
    def is_current(self) -> bool:
        """True if the folder still has the page of this result, and not that of a later call."""
        return self._path.is_file() and self._path.read_bytes() == self._page

    def report(self, path: str | Path | None = None) -> Path:
        """Return the page of the result.

        path: a copy of the page is written there; its folder must exist. Pictures that lie beside the page are copied
        into a folder `images` beside the copy. The copy has no links to the tables in the run's folder.

        ValueError: the path is no file in a folder that exists; or no path is given, and another call has written its
        page into the folder since.
        """
        if path is not None:
            return self._copied(Path(path))
        if not self.is_current:
            raise ValueError(
                f"report: {self._path} is of a later call in the same folder; report(path) writes the page of this "
                "result, and another out= keeps the calls apart"
            )
        return self._path

    def _copied(self, path: Path) -> Path:
        text = re.sub(r"<!-- beside -->.*?<!-- /beside -->", "", self._page.decode(), flags=re.DOTALL)
        if path.is_dir() or not path.parent.is_dir():
            found = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise ValueError(f"report: {path}: {found}; give the path of a file in a folder that exists")
        path.write_text(text, encoding="utf-8")
        for name in sorted(set(re.findall(r'src="(images/[^"]+)"', text))):
            if (self._path.parent / name).is_file():
                (path.parent / "images").mkdir(exist_ok=True)
                shutil.copyfile(self._path.parent / name, path.parent / name)
        return path

    def show(self) -> None:
        """Show the page: in a notebook below the cell, else print the table, and open the page in the browser."""
        interactive: Any = sys.modules.get("IPython")  # a notebook has imported it
        if interactive is None or interactive.get_ipython() is None:
            sys.stdout.write(f"{self}\n")
            webbrowser.open(self.report().as_uri())
            return
        page = base64.b64encode(self._page).decode()
        interactive.display.display(interactive.display.IFrame(f"data:text/html;base64,{page}", "100%", 800))

    def __repr__(self) -> str:
        width = max(shutil.get_terminal_size().columns, NARROWEST)
        lines = printed(verdicts_table(self._firsts), width=width, most_rows=None, most_metrics=None)
        where = f"; page: {self._path}" if self.is_current else ""
        above = (textwrap.fill(f"Caution: {line}", width) for line in self.cautions)
        return "\n".join([*above, *lines, "", f"accuracy {percent(self.accuracy)}{where}"]).strip("\n")

    def _repr_html_(self) -> str:
        wide = self.table.assign(
            said=[f"{v:.3f} ({w})" if v == v else w for v, w in zip(self.table.value, self.table.verdict, strict=True)]  # noqa: PLR0124  NaN
        )
        order = list(dict.fromkeys(wide.metric))
        pivot = wide.pivot(index="method", columns="metric", values="said").reindex(columns=order)
        best = wide.groupby("method")["rank"].mean().sort_values().index
        above = "".join(
            f"<p><b>Caution:</b> {html.escape(line)}</p>" for line in (*self.cautions, *notes(self._firsts))
        )
        describing = [panel.metric for panel in self._firsts if panel.direction == "none"]
        below = [*described(describing), f"The network gets {percent(self.accuracy)} of the images right."]
        return f"{above}{pivot.reindex(best).fillna('').to_html()}<p>{html.escape(' '.join(below))}</p>"

    @cached_property
    def _firsts(self) -> list[Panel]:
        every = panels([curve for curve in self._curves if not curve.twin_of], self.study.references())
        metrics = dict.fromkeys(panel.metric for panel in every)
        firsts = [next(panel for panel in every if panel.metric == metric) for metric in metrics]
        return [between.with_ranks(pairs) for pairs in between.pairs(firsts)]

    def _line(self, panel: Panel, row: Any) -> tuple[Any, ...]:
        sign = -1.0 if panel.direction == "lower" else 1.0
        ends = sorted((sign * row.difference.low, sign * row.difference.high))
        gain = (sign * row.difference.mean, *ends) if panel.direction != "none" else (np.nan,) * 3
        area = row.area
        return (
            *(panel.metric, panel.score, panel.direction, row.method, area.mean, area.low, area.high),
            *(*gain, row.p, row.rank, VERDICTS[row.verdict], note(row, panel)),
        )


def _long(curve: Curve) -> pd.DataFrame:
    """The values of a curve, a row for each sample and point. A curve of trainings has one for each of its images."""
    samples, points = curve.values.shape
    names = curve.pairs or tuple(range(samples))
    return pd.DataFrame(
        {
            "metric": curve.metric,
            "score": curve.score,
            "method": curve.method,
            curve.sample.rstrip("s") if curve.sample == "images" else "repeat": np.repeat(names, points),
            "fraction": np.tile(curve.at, samples),
            "value": curve.values.reshape(-1),
        }
    )
