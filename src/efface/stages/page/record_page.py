"""The page of one run by its data alone. It keeps the pictures of the page that was there."""

from pathlib import Path

import numpy as np

from efface.report import page
from efface.report.claims import answer_claims
from efface.report.facts import Facts
from efface.report.grid import read_made_from
from efface.report.pictured import read_pictured
from efface.stages.page.accuracy import ACCURACY_SETTINGS, unaccompanied_of
from efface.stages.page.comparison import merged
from efface.stages.page.pictures import FOLDER
from efface.stages.page.printed import say_page
from efface.stages.page.report import MARK, is_measured
from efface.stages.page.report_data import cost_of, degenerate_of, origin_of, seconds_of, unfinished_said
from efface.stages.run.curves import RunRecord
from efface.stages.run.progress import say
from efface.study.claims import ACCURACY

_NO_PICTURES = (
    "This page was written only from the plan and the results in the run's folder, so it shows no pictures of maps: "
    "they need the data (efface report STUDY shows them, and so does efface report FOLDER --trust)"
)


def write_record_page(record: RunRecord) -> None:
    """Write the page of a run. Print the path, and the verdict on each claim."""
    kept, folder = record.kept, record.folder / "report"
    measured = list(dict.fromkeys(curve.metric for curve in record.curves if is_measured(curve)))
    shown = [curve for curve in record.curves if curve.metric in measured]
    if not shown:
        raise ValueError(f"{record.folder}: holds no result that its plan asks for; run the measure stage of its study")
    claims = answer_claims(kept.claims, merged({"": [record]})) if kept.claims else ()
    metrics = [metric for metric in kept.metrics if metric.name in measured]
    keys = {
        metric.name: [
            key
            for curve in kept.curves
            if curve.metric == metric.name
            for repeat in curve.repeats
            for point in repeat
            for key in point.values()
        ]
        for metric in kept.metrics
    }
    costs = {
        metric.name: cost_of(keys[metric.name], record.results, kept.images, metric.sample) for metric in kept.metrics
    }
    missing = [key for key in kept.tasks if key not in record.results]
    known, pictures = kept.facts, read_pictured(folder)
    facts = Facts(
        study=kept.study,
        name=record.folder.resolve().name,
        versions=known.versions if known else {},
        device=known.device if known else "unknown",
        seconds=seconds_of(record.results),
        unfinished=unfinished_said(missing, len(kept.tasks), record.results),
        data=known.data if known else kept.source,
        network=known.network if known else kept.model,
        warnings=(
            *kept.said,
            *(known.remarks if known else ()),
            *unaccompanied_of(metrics),
            *(() if pictures else (_NO_PICTURES,)),
        ),
        how={ACCURACY: ACCURACY_SETTINGS} | (known.how if known else {}),
        setting_of=known.setting_of if known else {},
        outlines=known.outlines if known else {},
        degenerate=degenerate_of(kept.conditions, record.results),
        costs={name: cost for name, cost in costs.items() if cost is not None},
        layers=known.layers if known else {},
        picture=_drawn(record.folder, known.drawn) if known and known.drawn else None,
        passes=known.passes if known and known.passes is not None else np.nan,
        claims=claims,
        accuracy=float(np.nanmean(record.accuracy.values)) if record.accuracy is not None else np.nan,
        chance=record.chance,
        origin=origin_of(
            record.folder, record.results, kept.model, seed=kept.seed, repeats=known.repeats if known else None
        ),
    )
    own = record.accuracy if ACCURACY not in measured else None
    (folder / MARK).unlink(missing_ok=True)
    tabled = () if own is None else (own,)
    path = page.write(folder, shown, pictures, facts, references=kept.references, tabled=tabled, methods=kept.methods)
    for claim in claims:
        say(f"claim {claim.verdict}: {claim.says} ({claim.message})")
    say_page(path, facts.accuracy, facts.chance)


def _drawn(folder: Path, made_from: str) -> bytes | None:
    """Return the picture of stage visualize, if it is still the one that the plan tells of."""
    path = folder / FOLDER / "grid.png"
    content = path.read_bytes() if path.is_file() else b""
    return content if read_made_from(content) == made_from else None
