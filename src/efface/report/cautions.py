"""Maps that no score should judge, in sentences, before the scores."""

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
"""The columns of the table, by the name of the share; `levels` is good where it is high, the others where low."""
_NEGLIGIBLE = {"nonfinite": 0.0, "constant": 0.01, "tied_share": 0.5, "alike": 0.1, "blind": 0.01}
_SAYS = {
    "nonfinite": "{} of its maps hold values that are not finite: where these rank says nothing",
    "constant": "{} of its maps are one value everywhere: their order is the tie rule's",
    "tied_share": "{} of the units tie with another of their map: much of the order is the tie rule's",
    "alike": "{} of its maps are one map but for scale: they do not depend on the image",
    "blind": "{} of its maps are the same for another class: blind to what they explain",
}


def cautions(degenerate: Mapping[str, Mapping[str, float]], controls: Collection[str] = ()) -> dict[str, list[str]]:
    """By method, what a reader of its scores must know first; methods of which there is nothing to say are left out.

    That a control knows no class is no news: of controls it is not said.

    degenerate: by method, the mean share of each kind, NaN where it is not known.
    controls: methods that are controls.
    """
    found = {}
    for method, shares in degenerate.items():
        kinds = [kind for kind, edge in _NEGLIGIBLE.items() if shares.get(kind, np.nan) > edge]
        said = [_SAYS[kind].format(share(shares[kind])) for kind in kinds if kind != "blind" or method not in controls]
        if said:
            found[method] = said
    return found


def share(value: float | None) -> str:
    """A share in percent; "?" where it is not known."""
    return "?" if value is None or np.isnan(value) else "all" if value == 1 else f"{100 * value:.3g} %"
