"""What no single key of a study shows: settings that do not go with each other."""

from collections.abc import Iterator, Sequence
from typing import Any

from efface.metrics import metric
from efface.study.schema import MethodEntry, MetricEntry


def disagreements(tree: Any) -> list[str]:
    """What no single key shows: names that stand twice or are taken, views of nothing, retraining without `fit`."""
    methods = [each for each in _listed(tree, "attribution_methods") if isinstance(each, dict)]
    metrics = [each if isinstance(each, dict) else {"name": each} for each in _listed(tree, "metrics")]
    rows = [str(name) for each in methods for name in each.get("outputs") or [each.get("name")]]
    maps = [str(name) for each in methods if not each.get("maps") for name in each.get("outputs") or [each.get("name")]]
    problems = _doubled("attribution_methods", rows)
    problems += _doubled("metrics", [str(each.get("name")) for each in metrics])
    for each in methods:
        if each.get("maps") and each["maps"] not in maps:
            listed = ", ".join(maps) or "none"
            problems.append(
                f"attribution_methods.{each.get('name')}.maps: no entry '{each['maps']}'; there are {listed}"
            )
    if tree.get("reference") and tree["reference"] not in rows:
        problems.append(f"reference: no row '{tree['reference']}'; there are {', '.join(rows) or 'none'}")
    threads, own = tree.get("threads"), _kwargs(tree.get("executor")).get("threads")
    if threads is not None and own is not None and threads != own:
        problems.append(
            f"threads: is {threads}, but executor.kwargs.threads is {own}; give the number once, as 'threads'"
        )
    problems += _clashing(tree)
    if not tree.get("second_network"):
        borrowed = [each.get("name") for each in methods if each.get("network") == "second"]
        problems += [
            f"attribution_methods.{name}: takes its maps from the second network, but the study has no "
            "'second_network'; add it"
            for name in borrowed
        ]
    for each in metrics if not (tree.get("fit") or tree.get("refit")) else ():
        try:
            found = metric(str(each.get("metric") or each.get("name")))
        except ValueError:  # said elsewhere
            continue
        if found.sample == "repeats" or found.needs_fit:
            name = each.get("name")
            problems.append(
                f"metrics.{name}: retrains the network, but the study has no 'fit'; add it, or drop the metric"
            )
    return problems


def unheard(reference: str | None, methods: Sequence[MethodEntry], metrics: Sequence[MetricEntry]) -> Iterator[str]:
    """That no metric of a study has the row that the others are to be compared with."""
    entries = {name: each for each in methods for name in each.gives}
    if reference is None or reference not in entries or not metrics:
        return
    entry = entries[reference]
    made = entries.get(entry.maps or "", entry)
    of_maps = [each for each in metrics if each.formula.subject == "maps"]
    if any(each.formula.sample == "repeats" or not made.is_redrawn for each in of_maps):
        return
    why = "it is drawn anew each epoch, and no metric retrains" if of_maps else "all of them are of the network"
    yield f"reference: no metric of the study has the row '{reference}': {why}; name another row, or drop this key"


_TAKEN = ("models", "report", "study.yml", "failures.log")
"""What a study of several runs keeps in its own folder."""


def _clashing(tree: Any) -> Iterator[str]:
    """Runs of one study that would be the same, or lie where the study has its own files."""
    seeds = _listed(tree, "seeds")
    for seed in sorted({str(each) for each in seeds if seeds.count(each) > 1}):
        yield f"seeds: {seed} stands twice; each seed is a run of its own, name it once"
    variants = tree.get("variants")
    lower: dict[str, str] = {}
    for name, changes in variants.items() if isinstance(variants, dict) else ():
        if str(name).lower() in _TAKEN:
            yield f"variants.{name}: the study has files of its own under this name; give the variant another"
        if (other := lower.setdefault(str(name).lower(), str(name))) != str(name):
            yield (
                f"variants.{name}: differs from '{other}' in capitals alone, and on some disks they would share a "
                "folder; give it another name"
            )
        if seeds and isinstance(changes, dict) and "seed" in changes:
            yield f"variants.{name}: cannot change 'seed', as 'seeds' gives those of every variant; drop one of the two"


def _kwargs(call: Any) -> dict[str, Any]:
    found = call.get("kwargs") if isinstance(call, dict) else None
    return found if isinstance(found, dict) else {}


def _listed(tree: Any, key: str) -> list[Any]:
    found = tree.get(key)
    return list(found) if isinstance(found, list | tuple) else []


def _doubled(where: str, names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"{where}: the name '{name}' stands twice; every row of the report needs its own" for name in twice]
