"""Every method of every study in configs/, on its own network and on tiny ones: a line in a study is thereby a test."""

import copy
import functools
import inspect
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from efface.methods.calling import OFFERS, MethodCall, attribute
from efface.models.layers import find_layer
from efface.models.preact import PreActResNet, preact_resnet
from efface.plug import words
from efface.plug.call import Call
from efface.plug.field import Word
from efface.study.schema import MethodEntry
from efface.study.study import load
from small.batches import all_inputs, noise_split
from small.networks import state_of

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yml"))
N, SIZE, CLASSES, ROWS = 5, 12, 4, 7
STAGE = "layer2"  # what stands for a layer that the tiny networks do not have
SAME_FOR_ALL = ("efface.methods.control.centre", "efface.methods.backprop.deconvnet")
"""Methods that may give two images of a class the same map: without max pooling, a deconvnet never asks the image."""
LRP = ("efface.methods.zennit.attribute", "efface.methods.lrp.lrp")
"""Where features of both signs are added, it divides by sums that nearly cancel, and rounding is all that they say."""
OF_TOKENS = {
    word
    for word, path in words.index("method").items()
    if ".attention." in path or path.endswith(".transformer_attribution")
}
"""Methods that need attention between tokens. They run on the network of their study, and not on the tiny ones."""
OF_DESIGNED = {"exact_map"}
"""Methods that need a network whose exact map is known. They run on the network of their study alone."""
OCCLUSION = "efface.methods.occlusion.occlusion"
"""Small patches change a score by little more than the rounding of float32."""
LONG = pytest.mark.long
OWN_N, LARGEST = 2, 64  # images on a study's own network; photographs are shrunk to this side


class Plain(nn.Module):
    """As VGG: convolutions, max pooling, fully connected layers; no BatchNorm."""

    def __init__(self, channels, classes):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.layer2 = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(8 * (SIZE // 2) ** 2, 10), nn.ReLU(), nn.Linear(10, classes))

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(images)))


class Fire(nn.Module):
    """As SqueezeNet and DenseNet: channels side by side, a convolution for a head."""

    def __init__(self, channels, classes):
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(channels, 5, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU()
        )
        self.left, self.right = nn.Conv2d(5, 4, 1), nn.Conv2d(5, 4, 3, padding=1)
        self.layer2, self.joined = nn.ReLU(), nn.Identity()  # what the head reads is the output of a layer
        self.fc = nn.Conv2d(13, classes, 1)

    def forward(self, images):
        first = self.layer1(images)
        both = self.layer2(torch.cat([self.left(first), self.right(first)], 1))
        return self.fc(self.joined(torch.cat([first, both], 1))).mean((2, 3))


def before(channels, classes):
    """Blocks that normalise and rectify before they convolve."""
    made = preact_resnet(blocks=[2, 1], widths=[5, 6], strides=[1, 1], in_channels=channels, num_classes=classes)
    for each in made.modules():
        if isinstance(each, (nn.Conv2d, nn.Linear)):  # or an erased corner moves a logit by little more than rounding
            nn.init.kaiming_normal_(each.weight)
    return made


@pytest.fixture
def family(request, tiny):
    """Makes a tiny network of a family by its name."""

    def build(channels, classes, seed):
        if request.param == "residual":
            return tiny(channels, classes, seed=seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = {"plain": Plain, "side_by_side": Fire, "before": before}[request.param](channels, classes)
            if request.param == "side_by_side":  # or a class against which all speaks has an empty Grad-CAM
                nn.init.uniform_(made.fc.weight, 0, 1)
            for norm in made.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    nn.init.uniform_(norm.running_mean, -0.2, 0.2)
                    nn.init.uniform_(norm.weight, 0.5, 1.5)
        return made.eval()

    return build


def entries():
    """Each method once for all studies that call it alike, cut to a few passes; further settings of it are long."""
    found, seen = {}, set()
    for path in CONFIGS:
        tree = load(path)
        channels = tree["model"].get("kwargs", {}).get("in_channels", 3) if isinstance(tree["model"], dict) else 3
        for entry in tree["attribution_methods"]:
            if entry.get("method") and entry["method"] not in OF_TOKENS | OF_DESIGNED:
                cut = entry | {"kwargs": few(entry.get("kwargs", {}))}
                key = f"{channels} {cut}"
                if key not in found:
                    marks = (LONG,) if entry["method"] in seen else ()
                    found[key] = pytest.param(cut, channels, id=f"{path.stem}-{entry['name']}", marks=marks)
                seen.add(entry["method"])
    return list(found.values())


def few(setting):
    """Counts of samples, steps and the like become 4 at most; other settings stay."""
    if isinstance(setting, dict):
        return {name: each if name == "num_classes" else few(each) for name, each in setting.items()}
    return min(setting, 4) if isinstance(setting, int) and not isinstance(setting, bool) else setting


def studies():
    """Every method of every study, with the study's network; beyond a study's first they are long."""
    found = []
    for path in CONFIGS:
        tree = load(path)
        size = tree["data"].get("kwargs", {}).get("size", 32) if isinstance(tree["data"], dict) else 32
        size = 8 if "digits" in str(tree["data"]) else min(size, LARGEST)
        model = Call.model_validate(Word("model").by_path(tree["model"]))
        kwargs = {name: each for name, each in model.kwargs.items() if name != "weights"}
        size = kwargs.get("size", size)
        if model.call == "efface.models.timm.load":  # a transformer takes images of one size
            kwargs["img_size"] = size
        model = model.model_copy(update={"kwargs": kwargs})
        marks = ()
        for entry in tree["attribution_methods"]:
            if entry.get("method"):
                cut = entry | {"kwargs": few(entry.get("kwargs", {}))}
                found.append(pytest.param(cut, model, size, id=f"{path.stem}-{entry['name']}", marks=marks))
                marks = (LONG,)
    return found


every_line = pytest.mark.parametrize(("line", "channels"), entries())
every_family = pytest.mark.parametrize(
    "family",
    ["residual", *(pytest.param(each, marks=LONG) for each in ("plain", "side_by_side", "before"))],
    indirect=True,
)
residual = pytest.mark.parametrize("family", ["residual"], indirect=True)


def method_of(line, model):
    return MethodEntry.model_validate(line | {"kwargs": with_layers(line["kwargs"], model)})


def with_layers(kwargs, model):
    """The settings, with a layer that the network does not have replaced, in calls within them too."""
    found = {name: with_layers(each, model) if isinstance(each, dict) else each for name, each in kwargs.items()}
    if "num_classes" in found:  # of a second network
        found["num_classes"] = CLASSES
    if isinstance(found.get("layer"), str):
        try:
            find_layer(model, found["layer"])
        except ValueError:
            found["layer"] = STAGE
    return found


def inputs_of(channels, size=SIZE, n=N):
    return all_inputs(n, size, channels=channels, seed=2, text="conformance", inside=0.3, dtype=torch.float32)


def explain(entry, model, inputs, max_batch=ROWS):
    more = {"seeds": inputs["seeds"], "masks": inputs["masks"], "max_batch": max_batch}
    return attribute(convention(entry, model, inputs), model, inputs["images"], inputs["targets"], **more)


def convention(entry, model, inputs):
    return MethodCall(
        entry.name, entry.call, entry.batched, entry.outputs, learnt(entry, model, inputs["images"].shape)
    )


LEARNT = weakref.WeakKeyDictionary()


def learnt(entry, model, shape):
    """What a class that learns from training images learns from a few."""
    if not hasattr(entry.call.resolve(), "fit"):
        return None
    kept = LEARNT.setdefault(model, {})
    if entry.call.text not in kept:
        made = entry.call()
        split = noise_split(12, *shape[2:], channels=shape[1], seed=4, classes=CLASSES)
        made.fit(copy.deepcopy(model).eval(), split, seed=1, max_batch=ROWS)
        kept[entry.call.text] = made.learnt
    return kept[entry.call.text]


def plainly(entry, model, inputs):
    """The method itself, as a notebook calls it, without the harness that would tidy up behind it."""
    made = convention(entry, model, inputs).method
    offered = {name: inputs.get(name, ROWS) for name in OFFERS if name != "classes_of"}  # the targets are known
    if not isinstance(made, Call):
        offered = {name: each for name, each in offered.items() if name in inspect.signature(made).parameters}
    if entry.batched:
        return made(model, inputs["images"], inputs["targets"], **offered)
    return [made(model, inputs["images"][i : i + 1], int(inputs["targets"][i])) for i in range(N)]


def in_use(family, channels):
    """A network in the middle of someone's work: train mode, one part in eval mode, one frozen, one with a gradient."""
    model = family(channels, CLASSES, seed=3).train()
    model.layer1[1].eval()
    *_, weight, bias = model.parameters()
    bias.requires_grad_(False)
    weight.grad = torch.ones_like(weight)
    model.layer1.register_forward_hook(lambda *_: None)
    return model


def test_there_are_studies():
    assert len(CONFIGS) >= 1
    assert len(entries()) >= 5


@every_family
@every_line
def test_maps_have_the_images_shape_are_finite_and_differ(family, line, channels):
    model = family(channels, CLASSES, seed=3)
    entry = method_of(line, model)
    found = explain(entry, model, inputs_of(channels))
    assert tuple(found) == entry.gives
    for maps in found.values():
        assert maps.shape in {(N,), (N, SIZE, SIZE), (N, 1, SIZE, SIZE), (N, channels, SIZE, SIZE)}
        assert maps.dtype == (torch.int64 if maps.ndim == 1 else torch.float32)
        assert maps.isfinite().all()
        assert not maps.requires_grad
        assert entry.method in SAME_FOR_ALL or not any(torch.equal(maps[i], maps[0]) for i in range(1, N))


@every_family
@every_line
def test_same_seeds_give_the_same_bits(family, line, channels):
    model = family(channels, CLASSES, seed=3)
    entry = method_of(line, model)
    first = explain(entry, model, inputs_of(channels))
    torch.rand(7)
    again = explain(entry, model, inputs_of(channels))
    assert all(torch.equal(maps, again[name]) for name, maps in first.items())


@every_family
@every_line
def test_a_batch_gives_the_maps_of_its_images_alone_at_any_budget(family, line, channels):
    model, inputs = family(channels, CLASSES, seed=3), inputs_of(channels)
    entry = method_of(line, model)
    if entry.method == OCCLUSION or (entry.method in LRP and isinstance(model, PreActResNet)):
        model, inputs["images"] = model.double(), inputs["images"].double()
    together = explain(entry, model, inputs)
    singles = [
        explain(entry, model, {key: rows[i : i + 1] for key, rows in inputs.items()}, max_batch=1) for i in range(N)
    ]
    for name, maps in together.items():
        alone = torch.cat([each[name] for each in singles])
        if maps.ndim == 1:
            assert torch.equal(maps, alone)
        else:
            far, most = (maps - alone).abs().flatten(1).amax(1), maps.abs().flatten(1).amax(1)
            assert (far <= 1e-5 * most).all()


@every_family
@every_line
def test_model_and_images_are_as_before(family, line, channels):
    model, inputs = in_use(family, channels), inputs_of(channels)
    entry = method_of(line, model)
    before = state_of(model, *inputs.values())
    plainly(entry, model, inputs)
    assert state_of(model, *inputs.values()) == before


@residual
@every_line
@pytest.mark.parametrize(
    ("at", "calls"),
    [("layer2", 1), ("fc", 0), pytest.param("layer2", 0, marks=LONG), pytest.param("fc", 1, marks=LONG)],
)
def test_model_and_images_are_as_before_an_exception(family, line, channels, at, calls):
    model, inputs, passed = in_use(family, channels), inputs_of(channels), []
    entry = method_of(line, model)

    def fail(module, arguments):
        passed.append(module)
        if len(passed) > calls:
            raise RuntimeError("out of memory")

    getattr(model, at).register_forward_pre_hook(fail)
    before = state_of(model, *inputs.values())
    try:
        plainly(entry, model, inputs)
    except RuntimeError as error:
        assert str(error) == "out of memory"  # noqa: PT017  a method without enough passes does not fail
    assert state_of(model, *inputs.values()) == before


@pytest.mark.parametrize(("line", "model", "size"), studies())
def test_a_studys_own_network_can_be_explained(line, model, size):
    network, channels = own_network(model)
    inputs = inputs_of(channels, size, OWN_N)
    inputs["targets"] = torch.arange(OWN_N)
    entry = MethodEntry.model_validate(line)
    found = explain(entry, network, inputs)
    assert tuple(found) == entry.gives
    for maps in found.values():
        assert maps.shape in {(OWN_N,), (OWN_N, size, size), (OWN_N, 1, size, size), (OWN_N, channels, size, size)}
        assert maps.float().isfinite().all()
        assert entry.method in SAME_FOR_ALL or not torch.equal(maps[0], maps[1])
    again = explain(entry, network, inputs)
    assert all(torch.equal(maps, again[name]) for name, maps in found.items())


@functools.cache
def own_network(model):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = model().eval()
    return network, next(each.in_channels for each in network.modules() if isinstance(each, nn.Conv2d))
