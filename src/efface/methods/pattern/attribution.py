"""Explanations along patterns: what a unit answers to in the data, in place of the weights that filter it out.

Each method learns its patterns from training images (`fit`); those with the same `estimator`, `pool` and `places`
share one fit. They are defined for networks of convolutions, linear layers, BatchNorm and ReLUs (modules or functions),
with pooling, dropout and sums; another is refused by the name of the module in the way.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from efface.methods.gradient import gradient, input_x_gradient
from efface.methods.nested import depends_on, made, outside, restore, teach
from efface.methods.path import integrated_gradients
from efface.methods.path.baseline import Baseline
from efface.methods.path.grid import Rule, grid_of
from efface.methods.pattern.fit import Estimate, Estimator, FittedPatterns, fit, learnt_from
from efface.methods.pattern.network import Back, Start, pattern_network
from efface.models.evaluation import evaluating
from efface.plug.accepts import offer
from efface.plug.learning import is_learning
from efface.types import Images, Maps, Method, Seeds, Split, Target

Patterns = Mapping[str, Tensor]
"""Of each convolution and linear layer, by its name, in the shape of its weights with the BatchNorm after it folded."""


class PatternAttribution:
    """The target logit, sent back by weights times patterns: how much of it each pixel's signal makes, signed.

    The gradient's way back, with w * a in place of each layer's weights w: the gates of ReLUs and the switches of max
    pooling are those of the image, average pooling and sums keep their gradient, biases get nothing. One forward and
    one backward pass an image, and a copy of the network and two passes of one image a call.

    estimator: of the patterns of units with a ReLU on their output: two_component, positive or linear; what each is
        stands at `efface.methods.pattern.fit.Estimator`. Other units, such as the classes, get linear.
    pool: training images that patterns are estimated from, drawn by seed, at least 1. Each costs two to ten forward
        passes, once.
    places: of each convolution's output that are looked at in an image, drawn by seed, at least 1.
    start: logit, which sends back the target's logit; one, which sends back 1 whatever it is; softmax, which sends back
        its probability, squared, through the softmax: then other classes take part.

    Source: Kindermans et al. 2018, section 5 (arXiv:1705.05598).
    Differs: any sum or branch is allowed. A BatchNorm is folded into the layer before it; where it has none, it is a
        layer of one input a unit, whose pattern is known. The network's normalisation, and any other arithmetic, keeps
        its gradient: channels count by 1/std.
    """

    fit, learnt_from = fit, learnt_from

    def __init__(
        self, *, estimator: Estimator = "two_component", pool: int = 1024, places: int = 64, start: Start = "logit"
    ) -> None:
        self.estimate, self.start = Estimate(estimator, pool, places), _checked(start)
        self.learnt: dict[str, Tensor] = {}

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Target,
        *,
        patterns: Patterns | None = None,
        max_batch: int = 256,
    ) -> Images:
        """Maps.

        patterns: the patterns themselves, then without `fit`.
        max_batch: images in one pass, at least 1; bounds the memory, changes no map.
        """
        return _along(self, model, images, targets, patterns, "pattern_attribution", gradient, max_batch=max_batch)


class PatternNet:
    """The target logit, sent back by the patterns alone: the signal in the image that made it, signed.

    As `PatternAttribution`, with the patterns a in place of each layer's weights. The signals of all units add up, so
    that they grow with every layer, beyond float32 in deep networks: it works in float64, and divides each map by its
    largest absolute value. Settings: `PatternAttribution`; about twice its cost on a CPU.

    Source: Kindermans et al. 2018, section 5 (arXiv:1705.05598).
    Differs: as there, and in the scale of each map; a BatchNorm by itself has the pattern 1 / its weight.
    """

    fit, learnt_from = fit, learnt_from

    def __init__(
        self, *, estimator: Estimator = "two_component", pool: int = 1024, places: int = 64, start: Start = "logit"
    ) -> None:
        self.estimate, self.start = Estimate(estimator, pool, places), _checked(start)
        self.learnt: dict[str, Tensor] = {}

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Target,
        *,
        patterns: Patterns | None = None,
        max_batch: int = 256,
    ) -> Images:
        """Maps. Settings: `PatternAttribution`."""
        return _along(self, model, images, targets, patterns, "pattern_net", gradient, max_batch=max_batch)


class PatternGuidedIG:
    """PatternAttribution averaged along the straight line from a baseline, times the way travelled: PGIG, signed.

    Every gate, and what the way back starts with, is that of the point on the line. `steps` forward and backward
    passes an image.

    steps: points on the line, at least 1.
    rule: where they are and what they weigh: `efface.methods.path.grid.Rule`.
    baseline: a number, or one a channel, in [0, 1]; `mean`, each channel's own; `blur`; or the images themselves.
    estimator, pool, places, start: `PatternAttribution`.

    Source: Schwarzenberg & Castle 2020 (arXiv:2007.10685).
    Differs: black is the baseline, midpoint the rule; the released code takes the mean colour of ImageNet and rule
        `interior`, and starts from the softmax in one script and from 1 in another.
    """

    fit, learnt_from = fit, learnt_from

    def __init__(
        self,
        *,
        steps: int = 25,
        rule: Rule = "midpoint",
        baseline: Baseline = 0.0,
        estimator: Estimator = "two_component",
        pool: int = 1024,
        places: int = 64,
        start: Start = "logit",
    ) -> None:
        grid_of(rule, steps)  # refuses what is wrong before the fit
        self.steps, self.rule, self.baseline = steps, rule, baseline
        self.estimate, self.start = Estimate(estimator, pool, places), _checked(start)
        self.learnt: dict[str, Tensor] = {}

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Target,
        *,
        patterns: Patterns | None = None,
        max_batch: int = 256,
    ) -> Images:
        """Maps. Settings: `PatternAttribution`, where `max_batch` counts points."""
        line = partial(integrated_gradients, steps=self.steps, rule=self.rule, baseline=self.baseline)
        return _along(self, model, images, targets, patterns, "pattern_attribution", line, max_batch=max_batch)


class PatternGuided:
    """Any gradient method, with the patterns' way back in place of the gradient's.

    So pattern input x gradient, pattern guided backprop, SmoothGrad or Grad-CAM along patterns: the method gets a copy
    of the network, which answers as the network does. Cost: the method's, and that copy.

    method: any that takes gradients. A class is made; with a `fit`, such as expected gradients, it learns from the same
        training images as the patterns, with the network itself, and its `fit` is part of this one.
    back: pattern_attribution, weights times patterns; or pattern_net, the patterns alone, each map divided by its
        largest absolute value.
    estimator, pool, places: `PatternAttribution`.
    start: as there, but one by default, with which a gradient starts; then the method's own `score` counts as well.

    Source: Schwarzenberg & Castle 2020 (arXiv:2007.10685), whose released code has all of its methods so.
    Differs: it starts from the softmax.
    """

    def __init__(
        self,
        *,
        method: Method = input_x_gradient,
        back: Back = "pattern_attribution",
        estimator: Estimator = "two_component",
        pool: int = 1024,
        places: int = 64,
        start: Start = "one",
    ) -> None:
        if back not in ("pattern_attribution", "pattern_net"):
            raise ValueError(f"back is {back!r}; expected pattern_attribution or pattern_net")
        self.method, self.back = made(method), back
        self.estimate, self.start = Estimate(estimator, pool, places), _checked(start)
        self.learnt: dict[str, Tensor] = {}

    def learnt_from(self) -> dict[str, Any]:
        """The settings that `learnt` depends on; those of a method that does not learn are none of them."""
        return learnt_from(self) | ({"method": depends_on(self.method)} if is_learning(self.method) else {})

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Let the method learn, if it does; then estimate the patterns, as `PatternAttribution` does."""
        within = {}
        if is_learning(self.method):
            within = teach("method", self.method, model, data, seed=seed, max_batch=max_batch)
        fit(self, model, data, seed=seed, max_batch=max_batch)
        self.learnt |= within

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Target,
        *,
        patterns: Patterns | None = None,
        seeds: Seeds | None = None,
        max_batch: int = 256,
    ) -> Any:
        """The method's maps. patterns: `PatternAttribution`; seeds, max_batch: for the method, where it takes them."""
        restore("method", self.method, self.learnt)
        return _along(self, model, images, targets, patterns, self.back, self.method, seeds=seeds, max_batch=max_batch)


@runtime_checkable
class _Settled(FittedPatterns, Protocol):
    start: Start


def _along(
    settled: _Settled,
    model: nn.Module,
    images: Images,
    targets: Target,
    patterns: Patterns | None,
    back: Back,
    method: Method,
    **offered: Any,
) -> Any:
    """The method's maps of the network's copy that goes back along the patterns."""
    known = outside(settled.learnt) if patterns is None else patterns
    if not known:
        raise ValueError(f"{type(settled).__name__} is not fitted: call fit first, or pass patterns")
    with evaluating(model):
        network = pattern_network(model, images, known, back=back, start=settled.start)
        if back == "pattern_attribution":
            return offer(method, network, images, targets, **offered)
        found = offer(method, network, images.double(), targets, **offered)
    scaled = {name: _scaled(maps).to(images) for name, maps in _named(found).items()}
    return scaled if isinstance(found, dict) else scaled[""]


def _named(found: Maps | dict[str, Maps]) -> dict[str, Maps]:
    return found if isinstance(found, dict) else {"": found}


def _scaled(maps: Maps) -> Maps:
    """Each map over its largest absolute value: rankings stay, and float32 can hold it."""
    largest = maps.abs().flatten(1).amax(1)
    return maps / largest.where(largest > 0, 1.0).view(-1, *(1,) * (maps.ndim - 1))


def _checked(start: Start) -> Start:
    if start not in ("logit", "one", "softmax"):
        raise ValueError(f"start is {start!r}; expected logit, one or softmax")
    return start
