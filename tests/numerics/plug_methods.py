"""Golden outputs of every attribution method that a study can name, called as a study calls it."""

import functools

import torch
from torchvision.models import VisionTransformer

from efface.base.types import Split
from efface.methods.calling import MethodCall, attribute
from efface.methods.control import exact_map
from efface.methods.fullgrad import full_grad_parts
from efface.methods.noise import gaussian, ranges
from efface.methods.path.clusters import k_means, representatives
from efface.methods.path.grid import grid_of
from efface.methods.pattern import PatternAttribution
from efface.models.designed import designed
from efface.plug.call import Call
from numerics import inputs
from numerics.table import golden

CAM = ({"layer": "layer1"}, {"layer": "layer2", "score": "probability", "relu": False})
DRAWN = ({"samples": 3}, {"samples": 2, "noise": 0.3, "score": "log_probability"})
LEARNT = ({},)
SQUARE = {"call": "efface.methods.cam.grad_cam", "kwargs": {"layer": "layer1"}}
NOISY = {"call": "efface.methods.smooth.smooth_grad", "kwargs": {"samples": 2}}
AROUND = {
    "call": "efface.methods.smooth.smooth_grad",
    "kwargs": {"samples": 2, "base": {"call": "efface.methods.path.expected_gradients", "kwargs": {"samples": 2}}},
}

METHODS = {
    "efface.methods.control.random": ({}, {"per_channel": True}),
    "efface.methods.control.random_resampled": ({},),
    "efface.methods.control.sobel": ({},),
    "efface.methods.control.laplace": ({},),
    "efface.methods.control.greedy": (
        {"cells": 2},
        {"cells": 3, "order": "insertion", "value": "mean", "score": "logit"},
    ),
    "efface.methods.control.centre": ({}, {"sigma": 0.5}),
    "efface.methods.control.true_mask": ({},),
    "efface.methods.control.explain_with": (
        {"network": "numerics.inputs.second_network", "method": "efface.methods.gradient.gradient"},
        {"network": "numerics.inputs.second_network", "method": NOISY},
    ),
    "efface.methods.gradient.gradient": ({}, {"score": "probability"}, {"score": "loss"}),
    "efface.methods.gradient.input_x_gradient": ({}, {"score": "log_probability"}),
    "efface.methods.smooth.smooth_grad_family": DRAWN,
    "efface.methods.smooth.smooth_grad": (*DRAWN, {"samples": 2, "base": "efface.methods.gradient.input_x_gradient"}),
    "efface.methods.smooth.smooth_grad_squared": DRAWN,
    "efface.methods.smooth.var_grad": DRAWN,
    "efface.methods.path.integrated_gradients": (
        {"steps": 4},
        {"steps": 4, "rule": "trapezoid", "baseline": "mean"},
        {"steps": 3, "rule": "left", "baseline": 0.5, "score": "probability"},
        {"steps": 3, "rule": "gauss_legendre", "baseline": "blur"},
    ),
    "efface.methods.path.smooth_integrated_gradients": ({"steps": 3, "samples": 2},),
    "efface.methods.path.ig_uniform": (
        {"samples": 3, "steps": 3},
        {"samples": 2, "steps": 3, "recalibrate": "points"},
        {"samples": 2, "steps": 3, "recalibrate": "references"},
    ),
    "efface.methods.path.ig_smooth": ({"samples": 2, "steps": 3},),
    "efface.methods.path.ig_squared": ({"samples": 2, "steps": 3},),
    "efface.methods.path.expected_gradients": ({"samples": 4},),
    "efface.methods.path.local_path_integration": (
        {"samples": 4, "steps": 2},
        {"samples": 3, "steps": 2, "centres": 2},
    ),
    "efface.methods.path.adversarial_gradient_integration": (
        {"samples": 2, "steps": 4},
        {"samples": 3, "steps": 3, "step_size": 0.02, "recalibrate": "points"},
    ),
    "efface.methods.path.blur_ig": ({"steps": 4}, {"steps": 3, "sigma": 1.5}),
    "efface.methods.path.guided_ig": ({"steps": 6}, {"steps": 5, "baseline": "mean", "max_distance": 0.2}),
    "efface.methods.cam.grad_cam": CAM,
    "efface.methods.cam.grad_cam_plus_plus": CAM,
    "efface.methods.cam.hires_cam": CAM,
    "efface.methods.cam.layer_cam": CAM,
    "efface.methods.cam.guided_grad_cam": CAM,
    "efface.methods.cam.score_cam": (
        *CAM,
        {"layer": "layer1", "weights": "score", "channels": 3, "score": "probability"},
    ),
    "efface.methods.fullgrad.full_grad": ({}, {"psi": False}),
    "efface.methods.fullgrad.simple_full_grad": ({},),
    "efface.methods.backprop.guided_backprop": ({}, {"score": "loss"}),
    "efface.methods.backprop.deconvnet": ({},),
    "efface.methods.backprop.rectified_gradient": ({"fraction": 0.5}, {"fraction": 0.7, "times_image": False}),
    "efface.methods.contrast.contrast": tuple(
        {"base": base, "against": against, "relu": relu}
        for base, against, relu in ((SQUARE, "weighted", False), (NOISY, "max", True), (SQUARE, "mean", False))
    ),
    "efface.methods.pattern.PatternNet": LEARNT,
    "efface.methods.pattern.PatternAttribution": LEARNT,
    "efface.methods.pattern.PatternGuidedIG": ({"steps": 3},),
    "efface.methods.pattern.PatternGuided": LEARNT,
    "efface.methods.occlusion.occlusion": (
        {"patch": 3, "stride": 2},
        {"patch": [2, 4], "value": "mean", "score": "probability"},
        {"patch": 4, "stride": 3, "value": [0.1, 0.5, 0.9]},
    ),
    "efface.methods.occlusion.rise": (
        {"samples": 6, "cells": 3},
        {"samples": 5, "cells": 4, "visible": 0.3, "value": 0.5},
    ),
    "efface.methods.nested.FittedInner": ({"method": AROUND},),
}
"""Settings of each method by its dotted path; the last part is the name of its output."""

ATTENTION = {
    "efface.methods.attention.attention_rollout": ({}, {"start": 1}),
    "efface.methods.attention.attention_grad_cam": ({}, {"score": "probability"}),
    "efface.methods.attention.generic_attention": ({}, {"score": "loss"}),
    "efface.methods.attention.legrad": ({}, {"start": 1, "score": "probability"}),
    "efface.methods.attention.tam": ({"steps": 3}, {"steps": 2, "start": 1, "baseline": 0.5}),
    "efface.methods.attention.bi_attn": ({"steps": 3, "start": 0}, {"steps": 2, "start": 1, "baseline": 0.5}),
    "efface.methods.attention.vit_cx": ({"distance": 0.2}, {"distance": 0.5, "noise": 0.0, "value": 0.5}),
}
"""The same for methods that need a transformer."""

RELEVANCE = {
    "efface.methods.lrp.lrp": (
        {},
        {"rules": "epsilon_gamma_box", "low": 0.1},
        {"rules": "epsilon_alpha2_beta1_flat", "epsilon": 0.1, "score": "probability"},
        {"rules": "gamma", "gamma": 0.5, "first": "w_square", "linear": "z_plus"},
    ),
    "efface.methods.lrp.cp_lrp": ({}, {"score": "loss"}),
    "efface.methods.lrp.attn_lrp": ({}, {"linear_gamma": 0.05, "conv_gamma": 0.25}),
    "efface.methods.lrp.gim": ({},),
}
"""The same for methods that serve convolutional networks and transformers."""

CAPTUM = {
    "DeepLift": ({},),
    "Saliency": ({},),
    "IntegratedGradients": ({"attribute": {"n_steps": 4}},),
    "GradientShap": ({"attribute": {"n_samples": 2}},),
    "LayerGradCam": ({"layer": "layer2"},),
    "FeatureAblation": ({"cells": 2},),
}
ZENNIT = {
    "EpsilonPlus": ({},),
    "EpsilonPlusFlat": ({},),
    "EpsilonAlpha2Beta1": ({},),
    "GuidedBackprop": ({},),
    "EpsilonGammaBox": ({},),
}
NETWORKS = {"residual": inputs.network, "plain": lambda: inputs.randomised(inputs.Plain(), 9)}
TRANSFORMERS = {
    "class_token": lambda: inputs.randomised(inputs.Transformer(), 9),
    "mean": lambda: inputs.randomised(inputs.Transformer(has_class_token=False), 9),
}
VITS = {"vit": lambda: inputs.randomised(VisionTransformer(8, 2, 2, 2, 8, 16, num_classes=inputs.CLASSES), 9)}


def _mapped(path: str, settings, networks=NETWORKS):
    """Maps of a batch on each kind of network that the settings suit."""
    found = {}
    for kind, make in networks.items():
        for number, kwargs in enumerate(settings):
            if kind == "plain" and (number or "layer2" in str(kwargs)):
                continue
            net = make()
            call = Call(call=path, kwargs=kwargs)
            outputs = ("smooth_grad", "smooth_grad_squared", "var_grad") if path.endswith("family") else ()
            method = MethodCall("m", call, outputs=outputs, learnt=_learnt(call, net))
            images, classes = inputs.images(4), inputs.targets(4)
            more = {"seeds": inputs.seeds(4), "max_batch": 5, "masks": inputs.masks(4)}
            maps = attribute(method, net, images, classes, **more)
            found |= {f"{kind}_{number}_{name}": each for name, each in maps.items()}
    return found


def _learnt(call: Call, net):
    if not call.learns:
        return None
    made = call()
    made.fit(net, Split(inputs.stored(10, 15), inputs.targets(10)), seed=1, max_batch=4)
    return made.learnt


def _named(path: str) -> str:
    """A method's name; what has no word is part of the area."""
    last = path.rpartition(".")[2]
    return f"explain.{last}" if last == "FittedInner" else f"method.{last}"


for _path, _settings in METHODS.items():
    golden(_named(_path))(functools.partial(_mapped, _path, _settings))

for _path, _settings in ATTENTION.items():
    golden(_named(_path))(functools.partial(_mapped, _path, _settings, TRANSFORMERS))
for _path, _settings in RELEVANCE.items():
    golden(_named(_path))(functools.partial(_mapped, _path, _settings, NETWORKS | VITS))

golden("method.tis")(
    functools.partial(
        _mapped,
        "efface.methods.attention.tis",
        ({"samples": 8}, {"samples": 8, "visible": 0.25, "score": "logit"}),
        VITS,
    )
)
golden("method.transformer_attribution")(
    functools.partial(_mapped, "efface.methods.lrp.transformer_attribution", ({}, {"start": 1}), VITS)
)

for _library, _key, _algorithms in (("captum", "algorithm", CAPTUM), ("zennit", "composite", ZENNIT)):
    for _name, _settings in _algorithms.items():
        _given = tuple({_key: _name} | each for each in _settings)
        golden(f"method.{_library}.{_name}")(functools.partial(_mapped, f"efface.methods.{_library}.attribute", _given))


@golden("method.exact_map")
def _exact_map():
    images, classes = inputs.images(4, size=16), inputs.targets(4) % 2
    kinds = ("counter", "or", "and", "contrast")
    return {kind: exact_map(designed(kind=kind).to(images.device), images, classes) for kind in kinds}


@golden("method.full_grad.parts")
def _full_grad_parts():
    """The image's part and the biases'; what is left over is rounding."""
    parts = full_grad_parts(inputs.network(), inputs.images(3), inputs.targets(3))
    return {"image": parts.image} | {f"bias_of_{name}": value for name, value in parts.modules.items()}


@golden("explain.parts")
def _parts():
    """What several methods share, and what they learn."""
    images, seeds = inputs.images(3), inputs.seeds(3)
    net, data = inputs.network(), Split(inputs.stored(10, 15), inputs.targets(10))
    patterns = PatternAttribution()
    patterns.fit(net, data, seed=1, max_batch=4)
    found = {f"learnt_{name}": value for name, value in patterns.learnt.items() if value.is_floating_point()}
    for rule in ("midpoint", "gauss_legendre", "trapezoid", "left", "right", "closed", "interior"):
        grid = grid_of(rule, 4)
        found |= {f"{rule}_{name}": torch.as_tensor(value) for name, value in vars(grid).items() if value is not None}
    return found | {"noise": gaussian(images, seeds, 0.2), "ranges": ranges(images)} | _clusters()


def _clusters():
    points = torch.cat([inputs.normal(1, 12, 3), inputs.normal(2, 8, 3) + 3])
    centres, labels, shares = k_means(points, 3, 1)
    rows, densities = representatives(points, 3, 1)
    alike, none = representatives(points[:1].repeat(4, 1), 3, 1)
    found = {"centres": centres, "labels": labels, "shares": shares, "rows": rows, "densities": densities}
    return found | {"rows_alike": alike, "densities_alike": none}
