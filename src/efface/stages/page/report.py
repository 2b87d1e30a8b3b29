"""The page of one run: what its results say. It reads files and computes no new number."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

import efface
from efface.plug.source import file_digest
from efface.report.claims import answer_claims
from efface.report.stats import Curve
from efface.stages.page.accuracy import ACCURACY_SETTINGS, accuracy, unaccompanied
from efface.stages.page.comparison import merged
from efface.stages.page.keeping import record
from efface.stages.page.pictures import picture
from efface.stages.page.printed import say_page
from efface.stages.page.report_data import accuracy_of, facts
from efface.stages.run.curves import PlannedRun
from efface.stages.run.progress import say
from efface.stages.run.run import Run
from efface.store.keys import key
from efface.study.claims import ACCURACY

MARK = ".made-from"
"""File beside a page that holds a digest of what it was made from."""


def write_report(planned: PlannedRun, *, anew: bool = True) -> None:
    """Write report.html, summary.csv and the figures. Print the path.

    anew: False keeps a report that was made from the same results and the same code.
    """
    folder, made_from = planned.run.folder / "report", _made_from(planned.run)
    mark = folder / MARK
    if anew or not mark.is_file() or mark.read_bytes() != _mark(folder, made_from):
        _write(planned, folder)
        mark.write_bytes(_mark(folder, made_from))
    say_page(folder / "report.html", *accuracy_of(planned.run))


def _mark(folder: Path, made_from: str) -> bytes:
    """Return a digest of what a report was made from and of the files that were written."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
    content = {path.relative_to(folder).as_posix(): zlib.crc32(path.read_bytes()) for path in paths}
    return key({"from": made_from, "files": content}).encode()


def _write(planned: PlannedRun, folder: Path) -> None:
    from efface.report import page  # draws with matplotlib, which takes seconds to import
    from efface.stages.page.gallery_data import gallery, rows_of

    (folder / MARK).unlink(missing_ok=True)
    run, curves = planned.run, planned.curves
    measured = list(dict.fromkeys(curve.metric for curve in curves if is_measured(curve)))
    shown = [curve for curve in curves if curve.metric in measured]  # no section of empty curves
    claims = answer_claims(run.study.claims, merged({"": [record(planned)]})) if run.study.claims else ()
    page_facts = facts(planned, measured)
    alone = tuple(unaccompanied(metric for metric in run.study.metrics if metric.name in measured))
    page_facts = replace(
        page_facts,
        claims=claims,
        warnings=page_facts.warnings + alone,
        how={ACCURACY: ACCURACY_SETTINGS, **page_facts.how},
    )
    own = accuracy(run) if ACCURACY not in measured else None
    page.write(
        folder,
        shown or curves,
        gallery(planned),
        page_facts,
        references=run.study.references(),
        tabled=() if own is None else (own,),
        methods=[view.name for view in rows_of(run)],
    )
    for claim in claims:
        say(f"claim {claim.verdict}: {claim.says} ({claim.message})")


def is_measured(curve: Curve) -> bool:
    """Return whether a probe of the curve ran. The first point does not count, since methods and metrics may share it.

    A probe that found no value counts, and so does one that failed: the page says so.
    """
    own = slice(1 if len(curve.at) > 1 else 0, None)
    return (
        bool(curve.failed)
        or bool(set(curve.at[own]) - set(curve.missing or ()))
        or not np.isnan(curve.values[:, own]).all()
    )


def _made_from(run: Run) -> str:
    """Return a digest of everything that the report shows: study, results, code and page files."""
    home = Path(efface.__file__).parent
    files = (*home.rglob("*.py"), *(home / "report").glob("page.*"))
    code = {str(file.relative_to(home)): file_digest(file) for file in files}
    drawn = zlib.crc32(picture(run) or b"")
    return key({"study": run.text, "results": run.results.records, "code": code, "drawn": drawn})
