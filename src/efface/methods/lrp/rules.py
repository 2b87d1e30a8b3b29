"""Rules of relevance propagation: for linear layers by kind, and for everything else a network computes."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from efface.base.shown import shown
from efface.methods.adapters import nearest

Kind = Literal["epsilon", "gamma", "z_plus", "alpha_beta", "flat", "w_square", "z_box"]
"""Rules of a linear or convolution layer, by the names of the literature."""

ONLY_FIRST = ("flat", "w_square", "z_box")
"""Rules that do not multiply by the input of the layer. They suit the layer that reads the image."""

KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class LinearRule:
    """A rule of linear and convolution layers.

    kind: name of the rule.
    value: epsilon, gamma, or alpha (with beta = alpha - 1) of the rule; other rules have no number.
    bias: the rule's denominator contains the bias, which keeps its share of the relevance.
    """

    kind: Kind
    value: float = 0.0
    bias: bool = True

    @property
    def is_gradient(self) -> bool:
        """Return True if the rule is the layer's own gradient: relevance is the input times the gradient."""
        return self.kind == "epsilon" and self.value == 0


GRADIENT = LinearRule("epsilon")
"""The epsilon rule with epsilon = 0, which is the gradient of the layer."""


@dataclass(frozen=True)
class Rules:
    """How relevance passes each kind of operation. Relevance is the activation times a changed gradient.

    dense: rule of linear layers. convolution: rule of convolutions. first: rule of the first of both, where given.
    products: of two activations that depend on the image. weighted: attention weights and gates count as weights, so
        the other factor takes the relevance. halved: each factor takes half. gradient: the gradient of the product.
    gates: the output of a sigmoid that multiplies activations takes no relevance, also where products are halved.
    softmax: blocked (its input takes none), gradient, or ratio (its input takes all).
    temperature: divisor of the scores at which the gradient of the softmax is taken.
    norms: frozen (the standard deviation counts as a constant), ratio (the input takes all), or gradient.
    activations: ratio (the input takes all) or gradient.
    sums: gradient (each summand takes its share), or absolute (shares by the absolute sums over an image).
    """

    dense: LinearRule = GRADIENT
    convolution: LinearRule = GRADIENT
    first: LinearRule | None = None
    products: Literal["weighted", "halved", "gradient"] = "weighted"
    gates: bool = True
    softmax: Literal["blocked", "gradient", "ratio"] = "blocked"
    temperature: float = 1.0
    norms: Literal["frozen", "ratio", "gradient"] = "frozen"
    activations: Literal["ratio", "gradient"] = "ratio"
    sums: Literal["gradient", "absolute"] = "gradient"

    @property
    def has_plain_layers(self) -> bool:
        """Return True if linear layers and convolutions keep their gradient."""
        return self.dense.is_gradient and self.convolution.is_gradient and self.first is None


CP_LRP = Rules()
ATTN_LRP = Rules(products="halved", softmax="gradient")
GIM = Rules(products="halved", softmax="gradient", temperature=2.0, gates=False, activations="gradient")
PLAIN = Rules(products="gradient", softmax="gradient", norms="gradient", activations="gradient")
"""The gradient itself."""
_POSITIVE = LinearRule("z_plus", bias=False)
TRANSFORMER = Rules(
    dense=_POSITIVE,
    convolution=_POSITIVE,
    products="halved",
    gates=False,
    softmax="ratio",
    norms="ratio",
    sums="absolute",
)
"""Rules of transformer attribution: only positive contributions, and sums split by absolute sums."""

# (linear layers, convolutions, first layer)
_SETS: dict[str, tuple[Kind, Kind, Kind | None]] = {
    "epsilon": ("epsilon", "epsilon", None),
    "gamma": ("gamma", "gamma", None),
    "epsilon_plus": ("epsilon", "z_plus", None),
    "epsilon_plus_flat": ("epsilon", "z_plus", "flat"),
    "epsilon_alpha2_beta1": ("epsilon", "alpha_beta", None),
    "epsilon_alpha2_beta1_flat": ("epsilon", "alpha_beta", "flat"),
    "epsilon_gamma_box": ("epsilon", "gamma", "z_box"),
}
SETS = tuple(_SETS)
"""Names of the sets of rules."""


def rules_of(
    name: str,
    *,
    linear: str | None = None,
    conv: str | None = None,
    first: str | None = None,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
) -> Rules:
    """Return a named set of rules, with single rules replaced. ValueError: an unknown name or a number out of range."""
    if name not in _SETS:
        raise ValueError(f"rules is {shown(name)}, which is no set of rules; {nearest(str(name), list(_SETS))}")
    at_least("epsilon", epsilon, 0.0)
    at_least("gamma", gamma, 0.0)
    at_least("alpha", alpha, 1.0)
    numbers = {"epsilon": epsilon, "gamma": gamma, "alpha_beta": alpha}
    made: list[LinearRule | None] = []
    chosen = zip(("linear", "conv", "first"), (linear, conv, first), _SETS[name], strict=True)
    for setting, own, of_set in chosen:
        kind = of_set if own is None else own
        usable = [each for each in KINDS if setting == "first" or each not in ONLY_FIRST]
        if kind is not None and kind not in usable:
            why = ", which only the first layer can have" if kind in ONLY_FIRST else ""
            raise ValueError(f"{setting} is {shown(kind)}{why}; expected one of {', '.join(usable)}")
        made.append(None if kind is None else LinearRule(kind, numbers.get(kind, 0.0)))  # type: ignore[arg-type]
    dense, convolution, of_first = made
    assert dense is not None
    assert convolution is not None
    return replace(CP_LRP, dense=dense, convolution=convolution, first=of_first)


def with_gamma(rules: Rules, linear_gamma: float, conv_gamma: float) -> Rules:
    """Return the rules with the gamma rule in linear layers and convolutions; a gamma of 0 keeps their gradient."""
    at_least("linear_gamma", linear_gamma, 0.0)
    at_least("conv_gamma", conv_gamma, 0.0)
    dense, convolution = (LinearRule("gamma", gamma) if gamma else GRADIENT for gamma in (linear_gamma, conv_gamma))
    return replace(rules, dense=dense, convolution=convolution)


def at_least(setting: str, number: float, least: float) -> None:
    """Raise ValueError for a number below `least`."""
    if not number >= least:
        raise ValueError(f"{setting} is {number:g}; expected a number of at least {least:g}: raise it")
