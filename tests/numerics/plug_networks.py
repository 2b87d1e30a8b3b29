"""Golden outputs of the networks that efface makes, and of the data sets that need no download."""

import functools

import torch
from PIL import Image

from efface.data.blocks import blocks, null_block
from efface.data.designed import designed as designed_data
from efface.data.digits import digits
from efface.data.folder import image_folder
from efface.data.patches import patches
from efface.data.subset import balanced, resized, stratified
from efface.data.synthetic import blockwise, one_signal
from efface.data.trigger import trigger
from efface.data.tris import tris
from efface.models.activation import nonlinearity
from efface.models.cifar import resnet, resnet9, resnet18, resnet34, resnet50, vgg, vgg5, vgg7, vgg11, vgg14
from efface.models.designed import designed
from efface.models.preact import preact_resnet, preact_resnet18
from efface.models.resnet import resnet8, resnet8_wide, resnet20, resnet32, resnet44, resnet56
from efface.models.small import mlp, mnist_cnn
from efface.models.torchvision import load
from numerics import inputs
from numerics.table import golden

NORM = {"mean": [0.4, 0.5, 0.3], "std": [0.2, 0.25, 0.3]}
SMALL = {"blocks": [1, 2], "widths": [4, 6]}
PLAN = [4, "M", 6, "M"]

NETWORKS = {
    resnet8: (8, [{}, NORM]),
    resnet8_wide: (8, [{}]),
    resnet20: (8, [{}]),
    resnet32: (8, [{}]),
    resnet44: (8, [{}]),
    resnet56: (8, [{}]),
    resnet: (
        8,
        [SMALL, SMALL | {"bottleneck": True}, SMALL | {"activation": "relu"} | NORM, SMALL | {"inner": "relu"}],
    ),
    vgg: (8, [{"plan": PLAN, "size": 8}, {"plan": PLAN, "size": 8, "activation": "relu"} | NORM]),
    resnet9: (8, [{}]),
    resnet18: (8, [{}]),
    resnet34: (4, [{}]),
    resnet50: (4, [{}]),
    vgg5: (32, [{}]),
    vgg7: (32, [{}]),
    vgg11: (32, [{}]),
    vgg14: (32, [{}]),
    preact_resnet: (8, [SMALL, SMALL | {"bottleneck": True}, SMALL | {"final_norm": False} | NORM]),
    preact_resnet18: (8, [{}]),
    mnist_cnn: (28, [{}]),
    mlp: (4, [{"in_features": 48, "widths": [7, 5], "in_channels": 3}]),
}


def _answers(make, size, variants):
    """Answers of a network whose weights are drawn by it, and of one whose weights and statistics are."""
    found = {}
    for number, settings in enumerate(variants):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            net = make(**settings).eval()
        channels = next(each for each in net.parameters() if each.ndim > 1).shape[1] if size == 28 else 3
        shown = inputs.images(2, size=size, channels=channels)
        with torch.no_grad():
            found[f"fresh_{number}"] = net(shown)
            found[f"parameters_{number}"] = sum(each.numel() for each in net.parameters())
            found[f"drawn_{number}"] = inputs.randomised(net, 6)(shown)
    return found


for _make, (_size, _variants) in NETWORKS.items():
    golden(f"model.{_make.__name__}")(functools.partial(_answers, _make, _size, _variants))


@golden("evaluate.nonlinearity")
def _nonlinearity():
    x = torch.linspace(-2, 2, 9)
    return {name: nonlinearity(name, 3.0)()(x) for name in ("softplus", "relu")}


@golden("model.designed")
def _designed():
    found, targets = {}, torch.tensor([0, 1, 1, 0])
    shown = inputs.images(4, size=16)
    for kind in ("counter", "or", "and", "contrast"):
        net = designed(kind=kind)
        with torch.no_grad():
            found |= {f"{kind}_logits": net(shown), f"{kind}_map": net.exact_map(shown, targets)}
    return found


@golden("model.torchvision")
def _load():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = load("mobilenet_v3_small", num_classes=4).eval()
    with torch.no_grad():
        return {"fresh": net(inputs.images(2, size=16))}


def _shown(splits):
    found = {}
    for name, split in splits.items():
        for part in ("images", "targets", "masks", "validation"):
            if (value := getattr(split, part)) is not None:
                found[f"{name}_{part}"] = (
                    value if isinstance(value, torch.Tensor) else value.take(torch.arange(len(split)))
                )
        found[f"{name}_classes"] = str(split.classes)
        found[f"{name}_sum"] = found[f"{name}_images"].double().mean((1, 2, 3))
    return found


def _named(**sets):
    return {f"{name}_{each}": value for name, splits in sets.items() for each, value in _shown(splits).items()}


@golden("data.patches")
def _patches():
    small = {"n_train": 16, "n_test": 5, "size": 16}
    return _named(plain=patches(**small, validation=0.25), leaky=patches(**small, leaky=True, seed=1, limit=8))


@golden("data.digits")
def _digits():
    return _named(some=digits(limit=30, test_limit=13, validation=0.2, seed=2))


@golden("data.blocks")
def _blocks():
    few = {"limit": 12, "test_limit": 5, "validation": 0.25, "copies": 2}
    found = _named(random=blocks(**few), top=blocks(position="top", null="blank", shift=0, classes=(3, 8, 1), **few))
    return found | {"null": null_block()}


@golden("data.one_signal")
def _one_signal():
    few = {"n_train": 14, "n_test": 6}
    return _named(
        plain=one_signal(**few), other=one_signal(d=6, signals=2, amplitude=(0.2, 0.9), first=0.5, seed=3, **few)
    )


@golden("data.one_signal.several")
def _several_signals():
    return _named(several=one_signal(d=6, signals=2, amplitude=(0.5, 1.5), n_train=14, n_test=6))


@golden("data.blockwise")
def _blockwise():
    more = {"d": 5, "size": 2, "relevant": 3, "eta": 0.4}
    return _named(plain=blockwise(n_train=14, n_test=6), other=blockwise(**more, n_train=9, n_test=6, seed=3, limit=6))


@golden("data.designed")
def _designed_data():
    few = {"n_train": 6, "n_test": 4, "seed": 2}
    return _named(**{kind: designed_data(kind=kind, **few) for kind in ("counter", "or", "and", "contrast")})


@golden("data.trigger")
def _trigger():
    return _named(
        corner=trigger(of=inputs.data, target=1, share=0.3, validation=0.2),
        anywhere=trigger(of=inputs.data, target=2, size=2, place="random", test_share=1.0, seed=3),
    )


@golden("data.tris")
def _tris():
    photographs = inputs.folder()
    for number, image in enumerate(inputs.stored(3, 31, size=12)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(photographs / f"{number}.png")
    few, natural = {"n_train": 8, "n_test": 4}, {"background": "natural", "natural": str(photographs)}
    found = {"plain": tris(**few), "large": tris(size=64, background="correlated", n_train=2, n_test=2)}
    for scenario, more in {
        "multiplicative": natural,
        "translations_rotations": {"limit": 4},
        "xor": {"seed": 1},
    }.items():
        found[scenario] = tris(scenario=scenario, **few, **more)
    return _named(**found)


@golden("data.image_folder")
def _image_folder():
    root = inputs.folder()
    for split, count in (("train", 4), ("test", 2)):
        for number, name in enumerate(("b", "a")):
            (root / split / name).mkdir(parents=True)
            for row, image in enumerate(inputs.stored(count, 20 + number, size=12)):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / split / name / f"{row}.png")
    few = {"size": 8, "resize": 10, "pack": str(root / "packed")}
    return _named(folder=image_folder(root=str(root), **few)) | _subset()


def _subset():
    classes = torch.tensor([0, 1, 1, 2, 0, 1, 1, 2, 1, 1, 0])
    return {
        "balanced": balanced(classes, 7, 1, setting="limit"),
        "stratified": stratified(classes, 0.4, 1),
        "resized": resized({"test": inputs.data()["test"]} | {}, None)["test"].images.double().mean((1, 2, 3)),
    }
