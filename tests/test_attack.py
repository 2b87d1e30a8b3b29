"""PGD: the exact optimum of a linear network, what it may not leave or change, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efface import draws
from efface.attack import pgd
from efface.config import Fit

N, C, H, W = 6, 2, 3, 4
D = C * H * W
TARGETS = torch.tensor([0, 1, 0, 1, 1, 0])
NORMS = ("linf", "l2")


def pictures(dtype=torch.float64):
    found = torch.rand(N, C, H, W, generator=torch.Generator().manual_seed(1), dtype=dtype)
    found[1] = found[1].round()  # where every pixel lies at the edge
    return found


def two_classes(scale=1.0):
    """Linear, two classes: the loss of each class grows along one direction."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, 2, dtype=torch.float64))
    with torch.no_grad():
        network[1].weight.copy_(scale * torch.randn(2, D, generator=torch.Generator().manual_seed(2)))
    return network.eval()


def downhill(network):
    weight = network[1].weight.detach()
    return (weight[1 - TARGETS] - weight[TARGETS]).unflatten(1, (C, H, W))


def smooth(classes=3, sharp=1.0):
    """A network of every kind of layer; the sharper, the less its gradient tells of what lies around."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        body = nn.Sequential(nn.Conv2d(C, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Softplus(beta=10), nn.Flatten())
        network = nn.Sequential(*body, nn.Linear(6 * H * W, 16), nn.ReLU(), nn.Linear(16, classes))
        nn.init.uniform_(network[1].running_mean, -0.2, 0.2)
        nn.init.constant_(network[1].weight, sharp)
        return network.double()


def losses(network, images, targets=TARGETS):
    with torch.no_grad():
        return F.cross_entropy(network.eval()(images), targets, reduction="none")


def lengths(change, norm):
    return change.flatten(1).norm(dim=1, p=math.inf if norm == "linf" else 2)


def seeds(count=N):
    return draws.seeds_of("attack", torch.arange(count))


def exact(images, way, norm, eps):
    """The point of the ball and of [0, 1] that lies farthest along a way: for l2 by bisection of its multiplier."""
    if norm == "linf":
        return (images + eps * way.sign()).clamp(0, 1)
    low, high = torch.zeros(N, 1, 1, 1, dtype=images.dtype), torch.full((N, 1, 1, 1), 1e4, dtype=images.dtype)
    for _ in range(200):
        middle = (low + high) / 2
        inside = lengths((images + middle * way).clamp(0, 1) - images, norm)[:, None, None, None] < eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return (images + low * way).clamp(0, 1)


# A linear network: the optimum is known


@pytest.mark.parametrize("norm", NORMS)
def test_far_from_the_edge_the_optimum_is_one_step_along_the_gradient(norm):
    network, images, eps = two_classes(), pictures() * 0.2 + 0.4, 0.1
    way = downhill(network)
    expected = images + (
        eps * way.sign() if norm == "linf" else eps * way / way.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    )
    torch.testing.assert_close(pgd(network, images, TARGETS, norm=norm, eps=eps), expected)
    torch.testing.assert_close(pgd(network, images, TARGETS, norm=norm, eps=eps, step=eps / 7, steps=7), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("start", ["zero", "random"])
def test_at_the_edge_the_optimum_of_ball_and_box_is_found(norm, start):
    network, images = two_classes(0.2), pictures()
    eps = 0.3 if norm == "linf" else 1.5
    expected = exact(images, downhill(network), norm, eps)
    assert ((expected == 0) | (expected == 1)).any()  # the box is active
    found = pgd(network, images, TARGETS, norm=norm, eps=eps, step=eps / 300, steps=1500, start=start, seeds=seeds())
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)
    best = losses(network, expected)
    assert (losses(network, found) <= best + 1e-9).all()
    torch.testing.assert_close(losses(network, found), best, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("norm", "share"), [("linf", 1 / 4), ("l2", 1 / 2)])
def test_default_steps_are_shares_of_eps(norm, share):
    network, images = two_classes(), pictures() * 0.2 + 0.4
    found = pgd(network, images, TARGETS, norm=norm, eps=0.1, steps=1)
    torch.testing.assert_close(lengths(found - images, norm), torch.full((N,), share * 0.1, dtype=torch.float64))


@pytest.mark.parametrize("margin", [20.0, 60.0, 1000.0])
def test_a_very_sure_network_is_attacked_with_full_steps(margin):
    network = two_classes()
    images = pictures() * 0.2 + 0.4
    sure = (downhill(network) * images).flatten(1).sum(1) + network[1].bias.diff()
    scale = margin / sure.abs().min()  # losses of e^-60: their gradients' squares are 0 in float32, their softmax is 1
    with torch.no_grad():
        network[1].weight *= scale
        network[1].bias *= scale
    classes = network(images).argmax(1)
    weight = network[1].weight.detach()
    way = (weight[1 - classes] - weight[classes]).unflatten(1, (C, H, W))
    network, images = network.float(), images.float()
    moved = (pgd(network, images, classes, norm="l2", eps=0.1, steps=1) - images).double()
    torch.testing.assert_close(lengths(moved, "l2"), torch.full((N,), 0.05).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(moved, 0.05 * way / lengths(way, "l2").view(-1, 1, 1, 1), rtol=0, atol=1e-5)
    signs = (pgd(network, images, classes, norm="linf", eps=0.1, steps=1) - images).sign()
    assert torch.equal(signs, way.sign().float())


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_robust_accuracy_does_not_depend_on_how_sure_a_linear_network_is(norm, dual):
    """In float64 the optimum is known: a class is lost from an eps of margin / dual norm on."""
    plain, count = two_classes(), 200
    with torch.no_grad():
        plain[1].bias.zero_()
    images = torch.rand(count, C, H, W, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.4 + 0.3
    logits, weight = plain(images).detach(), plain[1].weight.detach()
    classes = logits.argmax(1)
    distances = (logits.amax(1) - logits.amin(1)) / (weight[0] - weight[1]).norm(p=dual)
    ordered = distances.sort().values
    lost = count // 4
    eps = float(ordered[lost - 1 : lost + 1].mean())
    way = weight[0] - weight[1]
    farthest = eps * (1 if norm == "linf" else float(way.abs().max() / way.norm()))
    assert farthest < 0.3  # so that the edge of [0, 1] is nowhere reached
    for scale in (1.0, 10.0, 50.0, 1000.0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(D, 2, bias=False))
        network[1].weight.data = (weight * scale).float()
        found = pgd(network, images.float(), classes, norm=norm, eps=eps)
        right = network.double()(found.double()).argmax(1) == classes
        assert torch.equal(right, distances > eps)
        assert int(right.sum()) == count - lost


# What holds for every network


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("start", ["zero", "random"])
def test_images_stay_in_the_ball_and_in_the_box_and_get_worse(norm, keep, start):
    network, images, eps = smooth(), pictures(), 0.2 if norm == "linf" else 1.0
    found = pgd(
        network, images, TARGETS, norm=norm, eps=eps, step=eps, steps=5, keep=keep, start=start, restarts=2
        if start == "random" else 1, seeds=seeds(),
    )  # fmt: skip
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    assert lengths(found - images, norm).max() <= eps + 1e-12
    assert losses(network, found).mean() > losses(network, images).mean()


@pytest.mark.parametrize("norm", NORMS)
def test_eps_0_gives_the_images(norm):
    images = pictures()
    assert torch.equal(pgd(smooth(), images, TARGETS, norm=norm, eps=0.0, start="random"), images)
    assert pgd(smooth(), images[:0], TARGETS[:0], norm=norm, eps=0.1).shape == (0, C, H, W)


@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_is_its_images(norm):
    network, images = smooth().train(), pictures()
    settings = {"norm": norm, "eps": 0.3, "start": "random", "restarts": 2, "keep": "best"}
    whole = pgd(network, images, TARGETS, seeds=seeds(), **settings)
    for row in range(N):
        part = slice(row, row + 1)
        alone = pgd(network, images[part], TARGETS[part], seeds=seeds()[part], **settings)
        torch.testing.assert_close(alone, whole[part])


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_and_the_best_iterate_are_never_worse(norm):
    network, images, eps = smooth(sharp=20.0), pictures(), 0.3 if norm == "linf" else 1.0
    settings = {"norm": norm, "eps": eps, "step": eps, "steps": 3, "start": "random", "seeds": seeds()}
    found = [losses(network, pgd(network, images, TARGETS, restarts=k, **settings)) for k in (1, 2, 5)]
    assert (found[0] <= found[1]).all()
    assert (found[1] <= found[2]).all()
    assert (found[0] < found[2]).any()
    best = losses(network, pgd(network, images, TARGETS, keep="best", **settings))
    assert (best >= found[0]).all()
    assert (best > found[0]).any()
    from_image = pgd(network, images, TARGETS, norm=norm, eps=eps, step=2 * eps, keep="best")
    assert (losses(network, from_image) >= losses(network, images)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball(norm):
    count = 4000
    images = torch.full((count, 1, 1, 2), 0.5)
    classes = torch.zeros(count, dtype=torch.int64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    settings = {"norm": norm, "eps": 0.2, "step": 1e-30, "steps": 1, "start": "random"}
    found = pgd(network, images, classes, seeds=seeds(count), **settings) - images
    assert lengths(found, norm).max() <= 0.2 + 1e-6
    share = (lengths(found, norm) < 0.1).float().mean()  # a quarter of the area of a square or a disc
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / count) ** 0.5
    assert found.mean((0, 1, 2)).abs().max() < 5 * 0.2 / (3 * count) ** 0.5
    assert not torch.equal(found, pgd(network, images, classes, seeds=seeds(count) + 1, **settings) - images)


# The network afterwards


class Failing(nn.Module):
    def forward(self, images):
        raise RuntimeError("no")


@pytest.mark.parametrize("fails", [False, True])
def test_modes_flags_and_gradients_are_as_before(fails):
    network = nn.Sequential(smooth(), *([Failing()] if fails else [nn.Dropout(0.5)])).train()
    network[0][1].eval()
    network[0][0].weight.requires_grad_(False)
    for each in network.parameters():
        each.grad = torch.full_like(each, 0.5) if each.requires_grad else None
    modes = [each.training for each in network.modules()]
    flags = [each.requires_grad for each in network.parameters()]
    buffers = [each.clone() for each in network.buffers()]
    images = pictures()
    before = images.clone()
    call = {"norm": "l2", "eps": 0.3, "start": "random", "seeds": seeds()}
    if fails:
        with pytest.raises(RuntimeError, match="no"):
            pgd(network, images, TARGETS, **call)
    else:
        state = torch.get_rng_state()
        found = pgd(network, images, TARGETS, **call)
        assert not found.requires_grad
        assert torch.equal(torch.get_rng_state(), state)
    assert [each.training for each in network.modules()] == modes
    assert [each.requires_grad for each in network.parameters()] == flags
    assert all(each.grad is None or (each.grad == 0.5).all() for each in network.parameters())
    assert all(map(torch.equal, network.buffers(), buffers))
    assert torch.equal(images, before)
    assert not images.requires_grad


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter(around):
    network, call = smooth(), {"norm": "linf", "eps": 0.1}
    expected = pgd(network, pictures(), TARGETS, **call)
    with around():
        assert torch.equal(pgd(network, pictures(), TARGETS.clone(), **call), expected)


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "norm is 'l1'; expected linf or l2"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": math.inf}, "eps is inf"),
        (
            {"eps": 8.0},
            "eps is 8.0, but norm is linf and images lie in .0, 1.; expected at most 1: for 8 of 255 levels",
        ),
        ({"step": 0.0}, "step is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"restarts": 2}, "restarts is 2, but start is 'zero'"),
        ({"start": "there"}, "start is 'there'; expected zero or random"),
        ({"keep": "all"}, "keep is 'all'"),
        ({"restart": 2}, "no setting 'restart'; did you mean 'restarts'"),
    ],
)
def test_wrong_settings_are_refused_as_the_study_is_read(settings, message):
    kwargs = {"norm": "linf", "eps": 0.1} | settings
    with pytest.raises(ValueError, match=message.split(";", maxsplit=1)[0]):
        Fit(epochs=1, attack={"call": "efface.attack.pgd", "kwargs": kwargs})


def test_a_long_way_is_refused_for_linf_alone():
    network, images = two_classes(), pictures()
    with pytest.raises(ValueError, match=r"levels give 0\.0313725"):
        pgd(network, images, TARGETS, norm="linf", eps=8.0)
    assert pgd(network, images, TARGETS, norm="l2", eps=8.0).shape == images.shape


def test_a_random_start_without_seeds_is_refused():
    with pytest.raises(ValueError, match="seeds are missing"):
        pgd(smooth(), pictures(), TARGETS, norm="l2", eps=0.1, start="random")
