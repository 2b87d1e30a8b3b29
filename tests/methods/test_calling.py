"""How methods are called: both conventions, what they may return, and that they leave nothing behind."""

import random
from functools import partial

import numpy as np
import pytest
import torch

from efface.base import draws
from efface.methods.calling import MethodCall, attribute
from efface.plug.call import Call
from small.batches import uniform_images
from small.messages import words
from small.networks import state_of

N, C, H, W = 5, 3, 6, 7


images = partial(uniform_images, N, H, W, seed=0, dtype=torch.float32)


def run(name, model, *, batched=True, outputs=(), inputs=None, part=slice(None), **kwargs):
    """The maps by a function of this file."""
    method = MethodCall("mine", Call(call=f"test_calling.{name}", kwargs=kwargs), batched, outputs)
    inputs = images() if inputs is None else inputs
    targets, seeds = torch.arange(N) % 4, draws.seeds_of("t", torch.arange(N))
    return attribute(method, model, inputs[part], targets[part], seeds=seeds[part], max_batch=2)


# Methods as users write them


def brightness(model, images, targets):
    return images.mean(1)


def one_image(model, image, label, *, as_numpy=False, shape="h w"):
    assert not model.training
    assert label.shape == ()
    assert label.dtype == torch.int64
    assert image.shape[0] == 1
    found = {"h w": image[0].mean(0), "c h w": image[0] + label, "1 c h w": image + label, "1 h w": image.mean(1)}
    return found[shape].numpy() if as_numpy else found[shape]


def flipped(model, image, label):
    return image[0].mean(0).numpy()[::-1]


def read_only(model, image, label):
    found = image[0].mean(0).numpy().astype(np.float64)
    found.flags.writeable = False
    return found


def plain_gradient(model, image, label):
    image.requires_grad_()
    model(image)[0, label].backward()
    return image.grad[0]


def given(model, images, targets, *, seeds, max_batch):
    assert max_batch == 2
    return draws.uniform(seeds, (H, W))


def seeds_themselves(model, images, targets, *, seeds):
    return seeds


def draws_alone(model, images, targets):
    return torch.rand(len(images), H, W) + float(np.random.rand()) + random.random()  # noqa: NPY002, S311


def two_maps(model, images, targets):
    return {"mean": images.mean(1), "all": images}


def two_maps_of_one(model, image, label):
    return {"mean": image[0].mean(0).numpy(), "all": image}


def likes_masks(model, images, targets, *, masks=0.0):
    return images[:, 0] * masks


def needs_masks(model, images, targets, *, masks):
    return masks.float()


def with_nan(model, images, targets, value="nan"):
    maps = images.mean(1)
    maps[3, 2, 2] = float(value)
    return maps


def returns(model, images, targets, what):
    return {
        "nothing": None,
        "list": [images[:, 0]] * 2,
        "number": torch.tensor(1.0),
        "short": images[:-1, 0],
        "flat": images.flatten(1),
        "turned": images[:, 0].transpose(1, 2),
        "channels": images[:, :2],
        "logits": torch.rand(len(images)),
        "five": images[None],
    }[what]


def returns_one(model, image, label, what):
    return {"nothing": None, "list": image.tolist(), "turned": image[0, 0].T, "channels": image[:, :2], "number": 1.0}[
        what
    ]


class Unrectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx, given):
        return given

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0


def leaves_a_mess(model, images, targets, *, fails=False):
    images[:] = 0.0
    model.train()
    model.fc.weight.requires_grad_(False)
    model.layer1[0].register_forward_hook(lambda module, inputs, output: Unrectified.apply(output))
    model.layer1[2].register_backward_hook(lambda module, before, after: None)
    model.layer2[0].weight.grad = torch.ones_like(model.layer2[0].weight)
    model.layer1[0](images)  # one of its hooks runs
    if fails:
        raise RuntimeError("out of memory")
    return images[:, 0]


# Conventions


def test_a_batched_method_gives_its_maps_on_its_name(tiny):
    found = run("brightness", tiny(seed=0))
    assert list(found) == ["mine"]
    assert torch.equal(found["mine"], images().mean(1))


@pytest.mark.parametrize("as_numpy", [False, True])
@pytest.mark.parametrize("shape", ["h w", "1 h w", "c h w", "1 c h w"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_method_of_single_images_gives_the_same_in_every_shape(tiny, as_numpy, shape, channels):
    inputs = images(channels=channels)
    model = tiny(channels, seed=0).train()
    found = run("one_image", model, batched=False, inputs=inputs, as_numpy=as_numpy, shape=shape)["mine"]
    label = (torch.arange(N) % 4)[:, None, None, None]
    expected = {"h w": inputs.mean(1), "1 h w": inputs.mean(1, keepdim=True)}.get(shape, inputs + label)
    torch.testing.assert_close(found, expected)


def test_numpy_memory_that_torch_refuses_is_copied(tiny):
    torch.testing.assert_close(run("flipped", tiny(), batched=False)["mine"], images().mean(1).flip(1))
    torch.testing.assert_close(run("read_only", tiny(), batched=False)["mine"], images().mean(1))


def test_the_gradient_as_older_code_takes_it_is_that_of_the_batch(tiny):
    model = tiny(seed=0)
    found = run("plain_gradient", model, batched=False)["mine"]
    inputs = images().requires_grad_()
    logits = model.eval()(inputs).gather(1, (torch.arange(N) % 4)[:, None]).sum()
    torch.testing.assert_close(found, torch.autograd.grad(logits, inputs)[0], rtol=1e-4, atol=1e-7)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "batched"), [("two_maps", True), ("two_maps_of_one", False)])
def test_a_dict_of_maps_gives_each_or_those_asked_for(tiny, name, batched):
    found = run(name, tiny(), batched=batched, outputs=("all", "mean"))
    assert torch.equal(found["all"], images())
    torch.testing.assert_close(found["mean"], images().mean(1))
    assert list(run(name, tiny(), batched=batched, outputs=("mean",))) == ["mean"]


@pytest.mark.parametrize("outputs", [(), ("mean", "other")])
def test_a_dict_whose_names_the_study_does_not_know_is_refused(tiny, outputs):
    with pytest.raises(ValueError, match=words("mine outputs [mean, all]")):
        run("two_maps", tiny(), outputs=outputs)


def test_one_map_where_outputs_are_named_is_refused(tiny):
    with pytest.raises(ValueError, match=words("mine outputs a b")):
        run("brightness", tiny(), outputs=("a", "b"))


# Seeds and masks


def test_seeds_and_rows_are_handed_over_so_maps_do_not_depend_on_the_batch(tiny):
    whole = run("given", tiny())["mine"]
    assert torch.equal(whole[3:4], run("given", tiny(), part=slice(3, 4))["mine"])


def test_seeds_may_be_the_answer(tiny):
    found = run("seeds_themselves", tiny())["mine"]
    assert torch.equal(found, draws.seeds_of("t", torch.arange(N)))


def test_draws_without_seeds_repeat_for_the_batch_and_leave_the_generators(tiny):
    model = tiny(seed=0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = run("draws_alone", model)["mine"]
    middle = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    random.random()  # noqa: S311
    torch.rand(3)
    assert torch.equal(run("draws_alone", model)["mine"], first)
    assert not torch.equal(run("draws_alone", model, part=slice(1, 5))["mine"], first[1:])
    assert torch.equal(middle[0], before[0])
    assert middle[1] == before[1]


def test_pythons_own_generator_is_kept(tiny):
    before = random.getstate()
    with draws.seeded(-5):
        random.random()  # noqa: S311
        assert random.getstate() != before
    assert random.getstate() == before


def test_a_method_that_can_do_without_masks_is_called_without(tiny):
    assert not run("likes_masks", tiny())["mine"].any()


def test_masks_that_the_data_do_not_have_are_one_clear_error(tiny):
    with pytest.raises(ValueError, match=words("mine masks")):
        run("needs_masks", tiny())


# What is refused


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_map_that_is_not_finite_is_refused_with_its_image(tiny, value):
    with pytest.raises(ValueError, match=words("mine NaN 1 5 3")):
        run("with_nan", tiny(), value=value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "nothing tensor"),
        ("list", "list 2 tensor"),
        ("number", "() 5"),
        ("short", "(4, 6, 7) 5"),
        ("flat", "(5, 126)"),
        ("turned", "(5, 7, 6) (5, 6, 7) (5, 1, 6, 7) (5, 3, 6, 7)"),
        ("channels", "(5, 2, 6, 7)"),
        ("logits", "(5,)"),
        ("five", "(1, 5, 3, 6, 7)"),
    ],
)
def test_a_wrong_answer_of_a_batched_method_is_one_clear_error(tiny, what, said):
    with pytest.raises(ValueError, match=words(f"attribution_methods.mine {said}")):
        run("returns", tiny(), what=what)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "nothing image"),
        ("list", "list 1 image"),
        ("turned", "(7, 6) (6, 7)"),
        ("channels", "(1, 2, 6, 7)"),
        ("number", "float image"),
    ],
)
def test_a_wrong_answer_for_a_single_image_is_one_clear_error(tiny, what, said):
    with pytest.raises(ValueError, match=words(f"attribution_methods.mine {said}")):
        run("returns_one", tiny(), batched=False, what=what)


# Nothing is left behind


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_method_leaves_on_the_model_is_taken_off(tiny, fails):
    model, inputs, calls = tiny(seed=0).train(), images(), []
    model.layer1.eval()
    handle = model.fc.register_forward_hook(lambda *_: calls.append(1))
    before = state_of(model)
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            run("leaves_a_mess", model, inputs=inputs, fails=True)
    else:
        run("leaves_a_mess", model, inputs=inputs)
    assert state_of(model) == before
    assert torch.equal(inputs, images())
    model(images())
    handle.remove()
    model(images())
    assert len(calls) == 1  # the caller's hook was kept, and its handle still takes it off


KINDS = {
    "sparse": lambda maps: maps.to_sparse(),
    "object": lambda maps: maps.numpy().astype(object),
    "text": lambda maps: maps.numpy().astype(str),
    "complex": lambda maps: maps * 1j,
    "complex array": lambda maps: (maps * 1j).numpy(),
    "masked array": lambda maps: np.ma.masked_less(maps.numpy(), 0.5),
    "small": lambda maps: maps.double() * 1e-60,
}


def of_kind(model, images, targets, *, kind):
    return KINDS[kind](images.mean(1))


def alone_of_kind(model, image, label, *, kind):
    return KINDS[kind](image.mean((0, 1)))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("sparse", "layout sparse_coo dense to_dense()"),
        ("object", "type object real"),
        ("text", "type real"),
        ("complex", "type complex64 real"),
        ("complex array", "type complex64 real"),
        ("masked array", "masked fill"),
        ("small", "small float32 scale"),
    ],
)
@pytest.mark.parametrize("batched", [True, False])
def test_maps_that_are_no_dense_real_numbers_are_refused(tiny, kind, said, batched):
    name = "of_kind" if batched else "alone_of_kind"
    with pytest.raises(ValueError, match=words(f"attribution_methods.mine returned {said}")):
        run(name, tiny(), batched=batched, kind=kind)
