"""Agreement of a metric with itself between settings: whether its order of the methods depends on fill or unit."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from efface.metrics.shared.effects import spearman
from efface.report.between import methods_of
from efface.report.formats import listed, two_digits
from efface.report.stats.agreement import Ranking, ranking
from efface.report.table import Panel

FEW = 4
"""With fewer methods, a rank correlation has too few values to say anything."""


@dataclass(frozen=True)
class BetweenSettings:
    """How alike the orders of the methods are at every two settings of a metric. Controls are left out.

    metric: the entry of the study with `across`.
    settings: the names of its settings, as the page shows them.
    methods: the methods that all settings rank.
    rho: Spearman's rank correlation of the orders at each two settings; NaN if a setting ranks all methods alike.
    halves: mean over the settings of the correlation between two halves of the images; NaN without images.
    first: for each method that is first at some setting, these settings.
    """

    metric: str
    settings: tuple[str, ...]
    methods: tuple[str, ...]
    rho: Mapping[tuple[str, str], float]
    halves: float
    first: Mapping[str, tuple[str, ...]]

    @property
    def mean(self) -> float:
        """The mean correlation of two settings."""
        known = [value for value in self.rho.values() if not np.isnan(value)]
        return float(np.mean(known)) if known else np.nan

    @property
    def worst(self) -> tuple[str, str] | None:
        """The two settings whose orders are least alike."""
        known = {names: value for names, value in self.rho.items() if not np.isnan(value)}
        return min(known, key=lambda names: known[names]) if known else None


def between_settings(firsts: Sequence[Panel], setting_of: Mapping[str, str]) -> list[BetweenSettings]:
    """Compare the orders of the methods at the settings of each metric that the study measures `across` settings.

    firsts: the panel of each metric's first score. setting_of: for an entry at one setting, the entry it comes from.

    Source: Bluecher, Vielhaben & Strodthoff 2024, section 4 (arXiv:2402.08023): mean pairwise Spearman correlation.
    """
    groups: dict[str, list[Panel]] = {}
    for panel in firsts:
        if panel.metric in setting_of and panel.direction != "none":
            groups.setdefault(setting_of[panel.metric], []).append(panel)
    return [_compared(metric, panels) for metric, panels in groups.items() if len(panels) > 1]


def sentences(one: BetweenSettings) -> list[str]:
    """Return what the agreement of a metric with itself shows, in sentences."""
    if len(one.methods) < 2:
        return [f"{one.metric}: fewer than two methods have values at all its settings, so no orders are compared."]
    if one.worst is None:
        return [f"{one.metric}: there are no two settings at which the means of the methods differ."]
    ranks = f"At its {len(one.settings)} settings, {one.metric} ranks the {len(one.methods)} methods"
    pair = f"The worst pair, {one.worst[0]} and {one.worst[1]}, has {two_digits(one.rho[one.worst])}."
    said = [f"{ranks} with a mean correlation of {two_digits(one.mean)}. {pair}"]
    if len(one.first) > 1:
        said.append(f"Which method has the best mean depends on the setting: {_counted(one)}.")
    else:
        (method,) = one.first
        said.append(f"{method} has the best mean at each of them.")
    if not np.isnan(one.halves):
        said.append(f"For comparison, two halves of the images at one setting have {two_digits(one.halves)}.")
    if len(one.methods) < FEW:
        said.append(f"With {len(one.methods)} methods, this correlation says little.")
    return said


def settings_cautions(several: Sequence[BetweenSettings]) -> list[str]:
    """Return a sentence for each metric whose best method depends on the setting."""
    return [
        f"The method with the best mean on {one.metric} depends on the setting: {_counted(one)}."
        for one in several
        if len(one.first) > 1
    ]


def settings_table(several: Sequence[BetweenSettings]) -> pd.DataFrame:
    """Return a line for each metric and two of its settings. `n` is the number of methods."""
    columns = ["metric", "setting", "other", "spearman", "n"]
    lines = [(one.metric, *names, value, len(one.methods)) for one in several for names, value in one.rho.items()]
    return pd.DataFrame(lines, columns=columns)


def _counted(one: BetweenSettings) -> str:
    return listed([f"{method} at {len(settings)}" for method, settings in one.first.items()])


def _compared(metric: str, panels: Sequence[Panel]) -> BetweenSettings:
    rankings = {panel.metric: ranking([row.curve for row in methods_of(panel)]) for panel in panels}
    names = {entry: entry.removeprefix(f"{metric}+") for entry in rankings}
    shared = [set(one.methods) for one in rankings.values()]
    methods = tuple(name for name in next(iter(rankings.values())).methods if all(name in one for one in shared))
    areas = {names[entry]: _of(one, methods) for entry, one in rankings.items()}
    means = {name: _means(values) for name, values in areas.items()}
    rho = {(one, two): _rho(means[one], means[two]) for one, two in itertools.combinations(means, 2)}
    images = all(panel.sample == "images" for panel in panels) and len(methods) > 1
    halves = [_rho(_means(values[::2]), _means(values[1::2])) for values in areas.values()] if images else []
    first: dict[str, tuple[str, ...]] = {}
    for name, mean in means.items():
        if methods and not np.isnan(mean).all():
            best = methods[int(np.nanargmax(mean))]
            first[best] = (*first.get(best, ()), name)
    known = [value for value in halves if not np.isnan(value)]
    return BetweenSettings(metric, tuple(means), methods, rho, float(np.mean(known)) if known else np.nan, first)


def _of(one: Ranking, methods: Sequence[str]) -> np.ndarray:
    """Return the signed areas of these methods, on the images or repeats that all of them have."""
    values = one.sign * one.areas[:, [one.methods.index(name) for name in methods]]
    return values[~np.isnan(values).any(axis=1)]


def _means(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)


def _rho(one: np.ndarray, other: np.ndarray) -> float:
    """Return the rank correlation of two vectors; NaN if one of them has equal values only, or NaN."""
    if len(one) < 2 or np.isnan(one).any() or np.isnan(other).any():
        return np.nan
    return float(spearman(one[None], other[None])[0])
