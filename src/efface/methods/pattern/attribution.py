"""Explanations with patterns in the backward pass: directions of the signal in the data, in place of the weights.

Each method learns its patterns from training images (`fit`). Methods with the same `estimator`, `pool` and `places`
share one fit. The methods are defined for networks of convolutions, linear layers, BatchNorm and ReLUs (modules or
functions), with pooling, dropout and sums. Any other network raises a ValueError with the name of the module.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from efface.base.shown import shown
from efface.base.types import Images, Maps, Method, Seeds, Split, Target
from efface.methods.gradient import gradient, input_x_gradient
from efface.methods.nested import build_method, depends_on, outside, restore, teach
from efface.methods.path import integrated_gradients
from efface.methods.path.baseline import Baseline
from efface.methods.path.grid import Rule, grid_of
from efface.methods.pattern.fit import Estimate, Estimator, FittedPatterns, fit, learnt_from
from efface.methods.pattern.network import Back, Start, pattern_network
from efface.models.evaluation import evaluating
from efface.plug.accepts import offer
from efface.plug.learning import is_learning

Patterns = Mapping[str, Tensor]
"""Patterns of each convolution and linear layer, by its name, in the shape of its weights after BatchNorm is folded."""


class PatternAttribution:
    """Target logit sent back by weights times patterns: the contribution of each pixel's signal to the logit, signed.

    Formula: the backward pass of the gradient, with w * a in place of the weights w of each layer, a its patterns.

    ReLUs and max pooling pass the same positions as in the gradient of the image. Average pooling and sums keep their
    gradient, and biases receive nothing. It costs one forward and one backward pass per image. Each call also costs a
    copy of the network and two passes of one image.

    estimator: estimator of the patterns of units with a ReLU on their output: two_component, positive or linear.
        `efface.methods.pattern.fit.Estimator` defines them. Other units, such as the classes, get linear.
    pool: training images for the patterns, drawn by seed, at least 1. Each costs two to ten forward passes, once.
    places: places of each convolution's output to use in an image, drawn by seed, at least 1.
    start: value to send back. logit: the target's logit. one: always 1. softmax: the squared probability of the
        target, sent back through the softmax, so that other classes have an influence.

    Source: Kindermans et al. 2018, section 5 (arXiv:1705.05598).
    Differs: any sum or branch is allowed. A BatchNorm is folded into the layer before it. Without such a layer, each of
        its units has one input, so its pattern is known. The network's normalisation and any other arithmetic keep
        their gradient, so channels are weighted by 1/std.
    """

    fit, learnt_from = fit, learnt_from
    back: ClassVar[Back] = "pattern_attribution"

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
        """Return the maps.

        patterns: the patterns themselves. Then `fit` is not needed.
        max_batch: most images in one pass, at least 1. It limits the memory and changes no map.
        """
        return _along(self, model, images, targets, patterns, self.back, self.method, max_batch=max_batch)

    @property
    def method(self) -> Method:
        """The method whose backward pass takes the patterns."""
        return gradient


class PatternNet(PatternAttribution):
    """Target logit sent back by the patterns alone: the signal in the image that causes the logit, signed.

    Formula: the backward pass of the gradient, with the patterns a in place of the weights of each layer.

    The signals of all units add up, so they grow with every layer, beyond float32 in deep networks. The method
    therefore works in float64, and divides each map by its largest absolute value. The settings are those of
    `PatternAttribution`. On a CPU it costs about twice as much.

    Source: Kindermans et al. 2018, section 5 (arXiv:1705.05598).
    Differs: as `PatternAttribution`, and in the scale of each map. A BatchNorm that is not folded has the pattern
        1 / its weight.
    """

    back = "pattern_net"


class PatternGuidedIG(PatternAttribution):
    """PatternAttribution averaged along the straight line from a baseline, times the way travelled: PGIG, signed.

    Formula: map = (x - x0) * sum over k of w_k P(x0 + alpha_k (x - x0)), with P the map of PatternAttribution.

    Active units and the start of the backward pass are those of the point on the line. It costs `steps` forward and
    backward passes per image.

    steps: points on the line, at least 1.
    rule: positions and weights of the points: `efface.methods.path.grid.Rule`.
    baseline: a number, or one per channel, in [0, 1]; `mean`, the image's mean of each channel; `blur`; or the baseline
        images themselves.
    estimator, pool, places, start: as in `PatternAttribution`.

    Source: Schwarzenberg & Castle 2020 (arXiv:2007.10685).
    Differs: the default baseline is black, and the default rule is midpoint. The released code uses the mean colour of
        ImageNet and rule `interior`. It starts from the softmax in one script and from 1 in another.
    """

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
        grid_of(rule, steps)  # raises an error for wrong settings before the fit
        self.steps, self.rule, self.baseline = steps, rule, baseline
        super().__init__(estimator=estimator, pool=pool, places=places, start=start)

    @property
    def method(self) -> Method:
        """Integrated gradients. `max_batch` counts points."""
        return partial(integrated_gradients, steps=self.steps, rule=self.rule, baseline=self.baseline)


class PatternGuided:
    """Any gradient method, with the backward pass of the patterns in place of the gradient's.

    This gives pattern input x gradient, pattern guided backprop, or SmoothGrad and Grad-CAM along patterns. The method
    receives a copy of the network with the same outputs. It costs the passes of the method, and this copy.

    method: any method that uses gradients. A class is made with its settings. If it has `fit`, such as expected
        gradients, it learns from the same training images, on the network itself. Its `fit` is part of this `fit`.
    back: pattern_attribution, weights times patterns; or pattern_net, the patterns alone, with each map divided by its
        largest absolute value.
    estimator, pool, places: as in `PatternAttribution`.
    start: as in `PatternAttribution`, but by default one, the start of a gradient. With one, the method's `score` also
        has an effect.

    Source: Schwarzenberg & Castle 2020 (arXiv:2007.10685), whose released code has this variant of all its methods.
    Differs: the released code starts from the softmax.
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
            raise ValueError(f"back is {shown(back)}; expected pattern_attribution or pattern_net")
        self.method, self.back = build_method(method), back
        self.estimate, self.start = Estimate(estimator, pool, places), _checked(start)
        self.learnt: dict[str, Tensor] = {}

    def learnt_from(self) -> dict[str, Any]:
        """Return the settings that `learnt` depends on; those of the method only if the method learns."""
        return learnt_from(self) | ({"method": depends_on(self.method)} if is_learning(self.method) else {})

    def fit(self, model: nn.Module, data: Split, *, seed: int, max_batch: int) -> None:
        """Fit the method if it learns; then estimate the patterns, as `PatternAttribution` does."""
        inner = {}
        if is_learning(self.method):
            inner = teach("method", self.method, model, data, seed=seed, max_batch=max_batch)
        fit(self, model, data, seed=seed, max_batch=max_batch)
        self.learnt |= inner

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
        """Return the method's maps.

        patterns: as in `PatternAttribution`.
        seeds: passed to the method if it takes them.
        max_batch: passed to the method if it takes it.
        """
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
    """Return the method's maps for the copy of the network with patterns in its backward pass."""
    known = outside(settled.learnt) if patterns is None else patterns
    if not known:
        raise ValueError(f"{type(settled).__name__} is not fitted: call fit first, or pass patterns")
    with evaluating(model):
        network = pattern_network(model, images, known, back=back, start=settled.start)
        if back == "pattern_attribution":
            return offer(method, network, images, targets, **offered)
        returned = offer(method, network, images.double(), targets, **offered)
    scaled = {name: _scaled(maps).to(images) for name, maps in _named(returned).items()}
    return scaled if isinstance(returned, dict) else scaled[""]


def _named(returned: Maps | dict[str, Maps]) -> dict[str, Maps]:
    return returned if isinstance(returned, dict) else {"": returned}


def _scaled(maps: Maps) -> Maps:
    """Return each map divided by its largest absolute value: ranks stay the same, and float32 can hold the map."""
    largest = maps.abs().flatten(1).amax(1)
    return maps / largest.where(largest > 0, 1.0).view(-1, *(1,) * (maps.ndim - 1))


def _checked(start: Start) -> Start:
    if start not in ("logit", "one", "softmax"):
        raise ValueError(f"start is {shown(start)}; expected logit, one or softmax")
    return start
