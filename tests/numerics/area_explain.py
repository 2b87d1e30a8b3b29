"""Golden outputs of how methods are called, of what a network makes of a class, and of how it is asked."""

import torch
import yaml
from torch import nn

from efface.base import draws
from efface.methods.calling import MethodCall, attribute
from efface.methods.gradients import gradient_at
from efface.metrics.probes.score import score_of
from efface.models.evaluation import evaluating_fast
from efface.models.fast_copy import affine, folded
from efface.models.layers import find_layer
from efface.models.normalise import normalisation
from efface.models.scores import logits_of, odds_against, scores_of, target_scores
from efface.plug.call import Call
from efface.stages.run.method_calls import explainer_of, maps_of_draw, method_call, seed_text
from efface.stages.run.run import Run
from efface.study.schema import MethodEntry
from efface.study.study import Study
from efface.training.generate import Sampling, denoise, grey_noise, maximise, samples
from numerics import inputs
from numerics.table import golden

OF = ("logit", "log_probability", "probability", "loss")


def batched(model, images, targets, *, seeds, max_batch, masks):
    """A method that shows what it is handed."""
    shown = draws.uniform(seeds, images.shape[2:]) + max_batch + masks.float() + targets[:, None, None]
    return {"shown": shown, "drawn": torch.rand(len(images), *images.shape[2:]), "unused": shown}


def single(model, image, label):
    """A method of one image, as older code is; it draws from torch's own numbers and leaves a gradient behind."""
    model.zero_grad()
    answer = model(image.requires_grad_())[0, label]
    answer.backward()
    return (image.grad[0] * torch.rand(1)).numpy()


class Learns:
    """A method that learns from training images."""

    def __init__(self, *, gain: float = 1.0) -> None:
        self.gain, self.learnt = gain, {}

    def fit(self, network, data, *, seed, max_batch):
        """Keep the mean image, moved by what it is called with."""
        self.learnt = {"mean": data.images.float().mean(0) / 255 + seed + max_batch}

    def __call__(self, model, images, targets):
        return self.gain * (images - self.learnt["mean"])


@golden("explain")
def _explain():
    net, images, classes, seeds = inputs.network(), inputs.images(4), inputs.targets(4), inputs.seeds(4)
    more = {"seeds": seeds, "max_batch": 3, "masks": inputs.masks(4)}
    here = f"{__name__}."
    shown = MethodCall("b", Call(call=f"{here}batched"), outputs=("shown", "drawn"))
    one = MethodCall("s", Call(call=f"{here}single"), batched=False)
    learns = Call(call=f"{here}Learns", kwargs={"gain": 2.0})
    made = learns()
    made.fit(net, inputs.data()["train"], seed=1, max_batch=7)
    drawn = MethodCall("r", Call(call="efface.methods.control.random_resampled"))
    cam = MethodCall("c", Call(call="efface.methods.cam.grad_cam", kwargs={"layer": "layer1"}))
    found = attribute(shown, net, images, classes, **more)
    found |= attribute(one, net, images, classes, **more)
    found |= attribute(MethodCall("l", learns, learnt=made.learnt), net, images, classes, **more)
    found |= attribute(drawn, net, images, classes, **more)
    found |= attribute(cam, net, images, classes, classes_of=lambda logits: logits.argmin(1), **more)
    return found | _of_a_study() | _layers(net)


def _study():
    folder = inputs.folder()
    tree = {
        "out": str(folder / "run"),
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 8, "n_test": 5, "size": 16}},
        "model": {"call": "numerics.inputs.network"},
        "explain": "true",
        "max_batch": 3,
        "seed": 4,
        "attribution_methods": [
            {"name": "random", "method": "efface.methods.control.random"},
            {"name": "smooth", "method": "efface.methods.smooth.smooth_grad", "kwargs": {"samples": 2}},
        ],
        "post": ["efface.erase.post.absolute", "efface.erase.post.channel_sum"],
        "metrics": ["morf"],
        "fractions": [0.3],
    }
    return Run(Study.model_validate(yaml.safe_load(yaml.safe_dump(tree))))


def seeds_of(text: str):
    return draws.seeds_of(text, torch.arange(2))


def _of_a_study():
    run, found = _study(), {}
    smooth = {"name": "m", "method": "efface.methods.smooth.smooth_grad", "kwargs": {"samples": 2}, "draws": 3}
    mean = {"name": "e", "method": "efface.methods.smooth.smooth_grad_family", "outputs": ["smooth_grad", "var_grad"]}
    entries = {
        "random": MethodEntry(name="a", method="efface.methods.control.random", draws=3),
        "resampled": MethodEntry(name="b", method="efface.methods.control.random_resampled", draws=2),
        "smooth": MethodEntry.model_validate(smooth),
    }
    for name, entry in entries.items():
        for again in entry.each_draw():
            for split in ("test", "train"):
                found[f"seeds_of_{name}_{again.draw}_{split}"] = seeds_of(seed_text(run, again, split))
    outputs = MethodEntry.model_validate(mean)
    found["outputs"] = str(method_call(outputs, None).outputs)
    found["named"] = str(sorted(maps_of_draw(outputs, {each: torch.zeros(1) for each in outputs.outputs})))
    images, classes = inputs.images(2, size=16), inputs.targets(2)
    for view in run.views:
        rows = torch.tensor([4, 1])
        found[f"asked_{view.name}"] = explainer_of(run, view)(run.network, images, classes, rows)
    return found


def _layers(net: nn.Module):
    return {"layer": type(find_layer(net, "layer1")).__name__}


@golden("generate")
def _generate():
    net, classes, seeds = inputs.network(), inputs.targets(4), inputs.seeds(4)
    images = inputs.images(4)
    settings = Sampling(count=4, steps=4, lr=0.3, decay=0.05, deviation=0.4)
    noisy, denoised = denoise(net, images, classes, seeds=seeds, noise=0.2, steps=3, lr=0.05, decay=0.02)
    given = denoise(net, images, classes, noise=0.1 * inputs.normal(1, 4, 3, 8, 8), steps=2, lr=0.1)
    return {
        "noise": grey_noise(seeds, (3, 8, 8), deviation=0.4),
        "samples": samples(net, classes, seeds, (3, 8, 8), settings, max_batch=3),
        "last": maximise(net, classes, images * 1.4 - 0.2, steps=4, lr=0.3, decay=0.1, clip="last", max_batch=3),
        "each": maximise(net, classes, images * 1.4 - 0.2, steps=4, lr=0.3, decay=0.1, max_batch=3),
        "default_decay": maximise(net, classes, images, steps=3, lr=2.0),
        "noisy": noisy,
        "denoised": denoised,
        "denoised_of_given": given.images,
        "costs": settings.costs,
    }


@golden("evaluate")
def _evaluate():
    net, images, classes = inputs.network(), inputs.images(5), inputs.targets(5)
    logits = inputs.normal(3, 5, 4) * 4
    weights = inputs.normal(4, 5, 4)
    found = {}
    for of in OF:
        found[f"scores_{of}"] = scores_of(logits, classes, of)
        found[f"gradient_{of}"] = gradient_at(net, images, classes, of)
        found[f"target_scores_{of}"] = target_scores(net, images, classes, of)
    with evaluating_fast(net, images) as fast:
        found["fast"] = fast(images)
    score = score_of(logits, classes, (classes + 1) % 4)
    scale, shift = affine(net.layer1[1])
    copied = folded(net, images)
    return found | {
        "weighted": scores_of(logits, weights, "logit"),
        "logits": logits_of(net, images),
        "odds_against": odds_against(logits, classes),
        "folded": copied(images),
        "folded_weight": copied.layer1[0].weight.contiguous(),
        "folded_bias": copied.layer1[0].bias,
        "affine_scale": scale,
        "affine_shift": shift,
        "normalised": normalisation([0.4, 0.5, 0.3], [0.2, 0.25, 0.3])(images),
        "accuracy": score.values["accuracy"],
        "probability": score.values["probability"],
        "logit": score.values["logit"],
    }
