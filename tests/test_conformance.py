"""Every method of every study in configs/, on a tiny network: a line in a study is thereby a test."""

from pathlib import Path

import pytest
import torch

from efface import draws
from efface.config import MethodEntry, load
from efface.layers import find_layer
from efface.methods.contract import OFFERS, Convention, attribute

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yml"))
N, SIZE, CLASSES, ROWS = 5, 12, 4, 7
STAGE = "layer2"  # what stands for a layer that the tiny network does not have


def entries():
    """Each method once for all studies that call it alike, cut to a few passes."""
    found = {}
    for path in CONFIGS:
        tree = load(path)
        channels = tree["model"].get("kwargs", {}).get("in_channels", 3) if isinstance(tree["model"], dict) else 3
        for entry in tree["attribution_methods"]:
            if entry.get("method"):
                cut = entry | {"kwargs": {name: few(each) for name, each in entry.get("kwargs", {}).items()}}
                found.setdefault(f"{channels} {cut}", pytest.param(cut, channels, id=f"{path.stem}-{entry['name']}"))
    return list(found.values())


def few(setting):
    """Counts of samples, steps and the like become 4 at most; other settings stay."""
    return min(setting, 4) if isinstance(setting, int) and not isinstance(setting, bool) else setting


every_line = pytest.mark.parametrize(("line", "channels"), entries())


def method_of(line, model):
    kwargs = dict(line["kwargs"])
    if "layer" in kwargs:
        try:
            find_layer(model, kwargs["layer"])
        except ValueError:
            kwargs["layer"] = STAGE
    return MethodEntry.model_validate(line | {"kwargs": kwargs})


def batch(channels):
    generator = torch.Generator().manual_seed(2)
    return {
        "images": torch.rand(N, channels, SIZE, SIZE, generator=generator),
        "targets": torch.arange(N) % CLASSES,
        "seeds": draws.seeds_of("conformance", torch.arange(N)),
        "masks": torch.rand(N, SIZE, SIZE, generator=generator) > 0.7,
    }


def explain(entry, model, inputs, rows=ROWS):
    given = Convention(entry.name, entry.call, entry.batched, entry.outputs)
    more = {"seeds": inputs["seeds"], "masks": inputs["masks"], "rows": rows}
    return attribute(given, model, inputs["images"], inputs["targets"], **more)


def plainly(entry, model, inputs):
    """The method itself, as a notebook calls it, without the harness that would tidy up behind it."""
    offered = {name: inputs.get(name, ROWS) for name in OFFERS}
    if entry.batched:
        return entry.call(model, inputs["images"], inputs["targets"], **offered)
    return [entry.call(model, inputs["images"][i : i + 1], int(inputs["targets"][i])) for i in range(N)]


def mark(model, inputs):
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [{k: len(v) for k, v in vars(m).items() if k.endswith("_hooks")} for m in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if p.grad is None else p.grad.flatten().tolist() for p in model.parameters()],
        "values": [value.flatten().tolist() for value in model.state_dict().values()],
        "inputs": [(each.flatten().tolist(), each.requires_grad, each.grad) for each in inputs.values()],
        "autograd": torch.is_grad_enabled(),
    }


def in_use(tiny, channels):
    """A network in the middle of someone's work: train mode, one part in eval mode, one frozen, one with a gradient."""
    model = tiny(channels, CLASSES, seed=3).train()
    model.layer1[1].eval()
    model.fc.bias.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    model.layer1.register_forward_hook(lambda *_: None)
    return model


def test_there_are_studies():
    assert len(CONFIGS) >= 1
    assert len(entries()) >= 5


@every_line
def test_maps_have_the_images_shape_are_finite_and_differ(tiny, line, channels):
    model = tiny(channels, CLASSES, seed=3)
    entry = method_of(line, model)
    found = explain(entry, model, batch(channels))
    assert tuple(found) == entry.gives
    for maps in found.values():
        assert maps.shape in {(N,), (N, SIZE, SIZE), (N, 1, SIZE, SIZE), (N, channels, SIZE, SIZE)}
        assert maps.dtype == (torch.int64 if maps.ndim == 1 else torch.float32)
        assert maps.isfinite().all()
        assert not maps.requires_grad
        assert not any(torch.equal(maps[i], maps[0]) for i in range(1, N))


@every_line
def test_same_seeds_give_the_same_bits(tiny, line, channels):
    model = tiny(channels, CLASSES, seed=3)
    entry = method_of(line, model)
    first = explain(entry, model, batch(channels))
    torch.rand(7)
    again = explain(entry, model, batch(channels))
    assert all(torch.equal(maps, again[name]) for name, maps in first.items())


@every_line
def test_a_batch_gives_the_maps_of_its_images_alone_at_any_budget(tiny, line, channels):
    model, inputs = tiny(channels, CLASSES, seed=3), batch(channels)
    entry = method_of(line, model)
    together = explain(entry, model, inputs)
    singles = [explain(entry, model, {key: rows[i : i + 1] for key, rows in inputs.items()}, rows=1) for i in range(N)]
    for name, maps in together.items():
        alone = torch.cat([each[name] for each in singles])
        if maps.ndim == 1:
            assert torch.equal(maps, alone)
        else:
            far, most = (maps - alone).abs().flatten(1).amax(1), maps.abs().flatten(1).amax(1)
            assert (far <= 1e-5 * most).all()


@every_line
def test_model_and_images_are_as_before(tiny, line, channels):
    model, inputs = in_use(tiny, channels), batch(channels)
    entry = method_of(line, model)
    before = mark(model, inputs)
    plainly(entry, model, inputs)
    assert mark(model, inputs) == before


@every_line
@pytest.mark.parametrize("at", ["layer2", "fc"])
@pytest.mark.parametrize("calls", [0, 1])
def test_model_and_images_are_as_before_an_exception(tiny, line, channels, at, calls):
    model, inputs, passed = in_use(tiny, channels), batch(channels), []
    entry = method_of(line, model)

    def fail(module, arguments):
        passed.append(module)
        if len(passed) > calls:
            raise RuntimeError("out of memory")

    getattr(model, at).register_forward_pre_hook(fail)
    before = mark(model, inputs)
    try:
        plainly(entry, model, inputs)
    except RuntimeError as error:
        assert str(error) == "out of memory"  # noqa: PT017  a method without enough passes does not fail
    assert mark(model, inputs) == before
