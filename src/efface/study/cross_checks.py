"""Cross-checks between the keys of a study: settings that do not fit together."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from efface.metrics import metric
from efface.plug.call import Call
from efface.plug.facts import fact
from efface.study.metric_entry import MetricEntry
from efface.study.schema import MOST, MethodEntry
from efface.training.loop import TrainingSettings


def too_many(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each list of the study that is too long, before anything is built from it."""
    for name in ("attribution_methods", "metrics", "fractions", "seeds", "variants", "claims"):
        if isinstance(given := tree.get(name), list | dict) and len(given) > MOST:
            yield f"{name}: there are {len(given):,}; expected at most {MOST:,}"
    variants, seeds = (
        len(given) if isinstance(given := tree.get(key), list | dict) else 0 for key in ("variants", "seeds")
    )
    if variants <= MOST and seeds <= MOST and (runs := max(1, variants) * max(1, seeds)) > MOST:
        yield f"variants and seeds: the study has {runs:,} runs; expected at most {MOST:,}"


def disagreements(tree: Any) -> list[str]:
    """Return a message for each contradiction between keys.

    Examples are duplicate or reserved names, views of missing entries, and metrics that retrain without `fit`.
    """
    methods = [entry for entry in _listed(tree, "attribution_methods") if isinstance(entry, dict)]
    metrics = [entry if isinstance(entry, dict) else {"name": entry} for entry in _listed(tree, "metrics")]
    rows = [str(name) for method in methods for name in method.get("outputs") or [method.get("name")]]
    maps = [
        str(name)
        for method in methods
        if not method.get("maps")
        for name in method.get("outputs") or [method.get("name")]
    ]
    problems = _doubled("attribution_methods", rows)
    problems += _doubled("metrics", [str(entry.get("name")) for entry in metrics])
    for method in methods:
        if method.get("maps") and method["maps"] not in maps:
            listed = ", ".join(maps) or "none"
            made = "; for a file of maps write 'file' in place of 'maps', or plug in a function of your own"
            problems.append(
                f"attribution_methods.{method.get('name')}.maps: no entry '{method['maps']}'; there are {listed}"
                f"{made if Path(str(method['maps'])).suffix else ''}"
            )
    if tree.get("reference") and tree["reference"] not in rows:
        problems.append(f"reference: no row '{tree['reference']}'; there are {', '.join(rows) or 'none'}")
    threads, own = tree.get("threads"), _kwargs(tree.get("executor")).get("threads")
    if threads is not None and own is not None and threads != own:
        problems.append(
            f"threads: is {threads}, but executor.kwargs.threads is {own}; give the number only once, as 'threads'"
        )
    problems += _clashing(tree)
    problems += _undecidable(tree, methods)
    if not tree.get("second_network"):
        borrowed = [method.get("name") for method in methods if method.get("network") == "second"]
        problems += [
            f"attribution_methods.{name}: its maps come from the second network, but the study has no "
            "'second_network'; add it"
            for name in borrowed
        ]
    for entry in metrics if not (tree.get("fit") or tree.get("refit")) else ():
        try:
            formula = metric(str(entry.get("metric") or entry.get("name")))
        except ValueError:  # the check of the entry itself reports it
            continue
        if formula.sample == "repeats" or formula.needs_fit:
            name = entry.get("name")
            problems.append(
                f"metrics.{name}: it retrains the network, but the study has no 'fit'; add it, or drop the metric"
            )
    return problems


def unheard(reference: str | None, methods: Sequence[MethodEntry], metrics: Sequence[MetricEntry]) -> Iterator[str]:
    """Yield a message if no metric of the study has the row that the other rows are compared with."""
    entries = {name: method for method in methods for name in method.gives}
    if reference is None or reference not in entries or not metrics:
        return
    entry = entries[reference]
    source = entries.get(entry.maps or "", entry)
    of_maps = [metric_entry for metric_entry in metrics if metric_entry.formula.subject == "maps"]
    if any(metric_entry.formula.sample == "repeats" or not source.is_redrawn for metric_entry in of_maps):
        return
    why = "it is drawn anew each epoch, and no metric retrains" if of_maps else "all of them measure the network"
    yield f"reference: no metric of the study has the row '{reference}': {why}; name another row, or drop this key"


def unfilled(imputer: Call, fits: Mapping[str, TrainingSettings | None]) -> Iterator[str]:
    """Yield a message for each training whose crop has a border that the study's fill cannot fill.

    fits: settings of each training by their key.
    """
    if not fact(imputer.resolve(), "drops_tokens"):
        return
    for where, fit in fits.items():
        if fit is not None and fit.crop:
            yield (
                f"imputer: {imputer.call} fills no pixels, but {where}.crop needs a fill for the border; give it as "
                "imputer of the metrics alone, in their kwargs"
            )


def _undecidable(tree: Any, methods: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a message for each part of a study with `decide` for which its rounds do not hold."""
    if tree.get("decide") is None:
        return
    for name in ("seeds", "variants"):
        if tree.get(name):
            yield f"decide: tells apart methods on one network, but the study has '{name}'; drop one of the two keys"
    if tree.get("controls"):
        yield (
            "decide: stops trainings that are not needed for a verdict, but 'controls' needs the trainings of all "
            "points; drop one of the two keys"
        )
    for method in methods:
        if method.get("draws", 1) != 1:
            yield (
                f"attribution_methods.{method.get('name')}.draws: is {method['draws']}; with 'decide' a method has one "
                "draw of its maps, for the rounds do not allow for what other draws would change; drop one of the keys"
            )


_TAKEN = ("models", "report", "study.yml", "failures.log")
"""Names of the files and folders that a study of several runs writes into its own folder."""


def _clashing(tree: Any) -> Iterator[str]:
    """Yield a message for runs of one study that would be equal or would overwrite each other or the study's files."""
    seeds = _listed(tree, "seeds")
    for seed in sorted({str(given) for given in seeds if seeds.count(given) > 1}):
        yield f"seeds: {seed} is listed twice; each seed is a separate run, list it once"
    variants = tree.get("variants")
    lower: dict[str, str] = {}
    for name, changes in variants.items() if isinstance(variants, dict) else ():
        if str(name).lower() in _TAKEN:
            yield f"variants.{name}: the study's own files have this name; give the variant another name"
        if (other := lower.setdefault(str(name).lower(), str(name))) != str(name):
            yield (
                f"variants.{name}: it differs from '{other}' only in capital letters, and some disks would put both "
                "into one folder; give it another name"
            )
        if seeds and isinstance(changes, dict) and "seed" in changes:
            yield f"variants.{name}: cannot change 'seed', because 'seeds' sets it for every variant; drop one of them"


def _kwargs(call: Any) -> dict[str, Any]:
    kwargs = call.get("kwargs") if isinstance(call, dict) else None
    return kwargs if isinstance(kwargs, dict) else {}


def _listed(tree: Any, key: str) -> list[Any]:
    listed = tree.get(key)
    return list(listed) if isinstance(listed, list | tuple) else []


def _doubled(where: str, names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"{where}: the name '{name}' is used twice; every row of the report needs its own" for name in twice]
