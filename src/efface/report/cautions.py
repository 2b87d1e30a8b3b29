"""Cautions about degenerate maps. The page shows them before the scores."""

from collections.abc import Collection, Mapping

import numpy as np

SHARES = {
    "nonfinite": "not finite",
    "constant": "constant",
    "levels": "distinct values / units",
    "tied_share": "tied units",
    "alike": "same for several images",
    "blind": "same for another class",
}
"""The columns of the table, by the name of the share. `levels` should be high, the others low."""
_NEGLIGIBLE = {"nonfinite": 0.0, "constant": 0.01, "tied_share": 0.5, "alike": 0.1, "blind": 0.01}
_SAYS = {
    "nonfinite": "{} of its maps hold values that are not finite, so their ranks mean nothing",
    "constant": "{} of its maps are constant, so their ranking is random",
    "tied_share": "{} of the units have the same value as another unit of their map, so much of the ranking is random",
    "alike": "{} of its maps are equal up to scale: they do not depend on the image",
    "blind": "{} of its maps are the same for another class: they do not depend on the class",
}


def cautions(degenerate: Mapping[str, Mapping[str, float]], controls: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the cautions for each method. Methods without a caution are left out.

    Controls never depend on the class, so no caution says that of them.

    degenerate: by method, the mean share of each kind, NaN where it is not known.
    controls: methods that are controls.
    """
    by_method = {}
    for method, shares in degenerate.items():
        kinds = [kind for kind, edge in _NEGLIGIBLE.items() if shares.get(kind, np.nan) > edge]
        lines = [_SAYS[kind].format(share(shares[kind])) for kind in kinds if kind != "blind" or method not in controls]
        if lines:
            by_method[method] = lines
    return by_method


def share(value: float | None) -> str:
    """Format a share in percent. "?" stands for an unknown share."""
    return "?" if value is None or np.isnan(value) else "all" if value == 1 else f"{100 * value:.3g} %"
