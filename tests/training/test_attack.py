"""PGD: the exact optimum of a linear network, what it may not leave or change, and what is refused."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from efface.base import draws
from efface.study.study import TrainingSettings
from efface.training.attack import minimal, pgd
from small.messages import words

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


@pytest.mark.long
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
    back = pgd(network, images, classes, norm="l2", eps=0.1, steps=1, loss="targeted") - images  # where it is already
    torch.testing.assert_close(back.double(), -moved, rtol=0, atol=1e-5)
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


# Losses with a class to reach

AIMED = ("targeted", "random_targeted", "plusone_targeted")


def theirs(loss, logits, aims):
    """What an attack of this kind descends, in cross entropies."""
    match loss:
        case "untargeted":
            return -F.cross_entropy(logits, aims)
        case "binary_hybrid":
            return F.cross_entropy(logits, 1 - aims) - F.cross_entropy(logits, aims)
    return F.cross_entropy(logits, (aims + 1) % logits.shape[1] if loss == "plusone_targeted" else aims)


def drawn_class(network, image, target, number):
    """The class that random_targeted aims at, seen from where one step leads: it is that of an attack on that class."""
    settings = {"norm": "l2", "eps": 0.1, "steps": 1}
    found = pgd(network, image, target, loss="random_targeted", seeds=number, **settings)
    others = [k for k in range(network(image).shape[1]) if k != int(target)]
    aimed = [pgd(network, image, torch.tensor([k]), loss="targeted", **settings) for k in others]
    (same,) = [k for k, each in zip(others, aimed, strict=True) if torch.equal(each, found)]
    return same


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["untargeted", "targeted", "plusone_targeted", "binary_hybrid"])
def test_a_step_goes_down_the_gradient_of_the_cross_entropies(norm, loss):
    network, images = smooth(classes=2 if loss == "binary_hybrid" else 3).eval(), pictures() * 0.2 + 0.4
    points = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(theirs(loss, network(points), TARGETS), points)
    way = -slope.sign() if norm == "linf" else -slope / lengths(slope, "l2").view(-1, 1, 1, 1)
    found = pgd(network, images, TARGETS, norm=norm, eps=0.1, step=0.1, steps=1, loss=loss)
    torch.testing.assert_close(found, images + 0.1 * way)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", AIMED)
def test_the_optimum_towards_a_class_of_a_linear_network_is_one_step(norm, loss):
    """Three classes, of which the others than the one aimed at share their weights: the way is the difference."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, 3, dtype=torch.float64))
    weight = network[1].weight.data
    weight[1] = weight[0]
    way = (weight[2] - weight[0]).unflatten(0, (C, H, W)).expand(N, -1, -1, -1)
    images, eps, true = pictures() * 0.2 + 0.4, 0.1, torch.full((N,), 1)
    far = images + eps * (way.sign() if norm == "linf" else way / way[0].norm())
    settings = {"norm": norm, "eps": eps, "loss": loss}
    if loss == "random_targeted":  # towards class 2, or towards 0, which shares its weights with 1
        found = pgd(network, images, true, seeds=seeds(), **settings)
        back = 2 * images - far
        towards = lengths(found - far, "linf") < 1e-9
        assert 0 < towards.sum() < N
        torch.testing.assert_close(found[~towards], back[~towards])
    else:
        found = pgd(network, images, true if loss == "plusone_targeted" else true + 1, **settings)
        torch.testing.assert_close(found, far)


@pytest.mark.parametrize("norm", NORMS)
def test_with_two_classes_all_but_targeted_are_the_same_attack(norm):
    network, images, settings = smooth(classes=2), pictures(), {"norm": norm, "eps": 0.3, "seeds": seeds()}
    settings |= {"start": "random", "restarts": 2, "keep": "best"}
    expected = pgd(network, images, TARGETS, **settings)
    for loss in ("random_targeted", "plusone_targeted", "binary_hybrid"):
        torch.testing.assert_close(pgd(network, images, TARGETS, loss=loss, **settings), expected)
    torch.testing.assert_close(pgd(network, images, 1 - TARGETS, loss="targeted", **settings), expected)
    assert not torch.allclose(pgd(network, images, TARGETS, loss="targeted", **settings), expected)


def test_a_random_class_is_never_the_true_one_and_each_other_as_often():
    count, classes = 1200, 4
    network = nn.Sequential(nn.Flatten(), nn.Linear(classes, classes, bias=False))
    network[1].weight.data = torch.eye(classes)
    images, true = torch.full((count, 1, 1, classes), 0.5), torch.arange(count) % classes
    settings = {"norm": "linf", "eps": 0.1, "step": 0.1, "steps": 1, "loss": "random_targeted"}
    risen = pgd(network, images, true, seeds=seeds(count), **settings).flatten(1) > 0.5
    assert (risen.sum(1) == 1).all()  # one logit rises, the others fall
    aimed = risen.int().argmax(1)
    assert (aimed != true).all()
    steps = ((aimed - true) % classes).bincount(minlength=classes)
    assert (steps[1:] - count / 3).abs().max() < 5 * (count * 2 / 9) ** 0.5
    again = pgd(network, images, true, seeds=seeds(count) + 1, **settings).flatten(1) > 0.5
    assert not torch.equal(again, risen)


def test_a_random_class_is_the_images_own_whatever_batch_start_and_restart():
    network, images = smooth(classes=4).eval(), pictures()
    alone = [drawn_class(network, images[i : i + 1], TARGETS[i : i + 1], seeds()[i : i + 1]) for i in range(N)]
    aims = torch.tensor(alone)
    assert len(aims.unique()) > 1
    settings = {"norm": "l2", "eps": 0.3, "start": "random", "restarts": 3, "keep": "best", "seeds": seeds()}
    found = pgd(network, images, TARGETS, loss="random_targeted", **settings)
    assert torch.equal(found, pgd(network, images, aims, loss="targeted", **settings))


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_and_the_best_iterate_go_by_the_class_aimed_at(norm):
    network, images, aims = smooth(sharp=20.0), pictures(), (TARGETS + 2) % 3
    eps = 0.3 if norm == "linf" else 1.0
    settings = {"norm": norm, "eps": eps, "step": eps, "steps": 3, "start": "random", "seeds": seeds()}
    settings |= {"loss": "targeted"}
    found = [losses(network, pgd(network, images, aims, restarts=k, **settings), aims) for k in (1, 5)]
    assert (found[1] <= found[0]).all()
    assert (found[1] < found[0]).any()
    best = losses(network, pgd(network, images, aims, keep="best", **settings), aims)
    assert (best <= found[0]).all()
    assert (best < found[0]).any()


# The least change


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_the_least_change_of_a_linear_network_is_its_margin_and_less_than_a_step(norm, dual):
    network, images, step = two_classes(), pictures() * 0.2 + 0.4, 0.003
    logits = network(images).detach()
    true = logits.argmax(1)
    true[0] = 1 - true[0]  # wrong from the start
    exact = logits.diff().abs().flatten() / network[1].weight.detach().diff(dim=0).norm(p=dual)
    found = minimal(network, images, true, norm=norm, step=step, steps=400)
    assert (network(found).argmax(1) != true).all()
    moved = lengths(found - images, norm)
    assert moved[0] == 0
    assert (moved[1:] > exact[1:]).all()
    assert (moved[1:] <= exact[1:] + step * (1 + 1e-9)).all()
    assert found.min() > 0
    assert found.max() < 1  # the box was nowhere reached


@pytest.mark.parametrize("norm", NORMS)
def test_the_least_change_stops_with_the_steps_and_stays_in_the_box(norm):
    network, images = two_classes(1e-3), pictures()
    true = network(images).argmax(1)
    network[1].bias.data[true[0]] += 1e3  # one class is never lost
    kept = true == true[0]
    few = minimal(network, images * 0.2 + 0.4, true, norm=norm, step=0.01, steps=3)
    torch.testing.assert_close(
        lengths(few - images * 0.2 - 0.4, norm)[kept], torch.full((int(kept.sum()),), 0.03).double()
    )
    far = minimal(network, images, true, norm=norm, step=1.0, steps=50)
    assert (network(far).argmax(1)[kept] == true[0]).all()
    assert far.min() == 0
    assert far.max() == 1
    assert minimal(network, images[:0], true[:0], norm=norm, step=0.1).shape == (0, C, H, W)


def test_the_least_change_is_the_images_own_and_leaves_the_network():
    network, images = smooth().train(), pictures()
    buffers = [each.clone() for each in network.buffers()]
    with torch.no_grad():
        true = copy.deepcopy(network).eval()(images).argmax(1)
    true[0] = (true[0] + 1) % 3
    whole = minimal(network, images, true, norm="l2", step=0.05)
    assert network.training
    assert all(map(torch.equal, network.buffers(), buffers))
    assert torch.equal(lengths(whole - images, "l2") > 0, torch.arange(N) > 0)
    for row in range(N):
        part = slice(row, row + 1)
        torch.testing.assert_close(minimal(network, images[part], true[part], norm="l2", step=0.05), whole[part])
    with torch.inference_mode():
        torch.testing.assert_close(minimal(network, pictures(), true.clone(), norm="l2", step=0.05), whole)


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
        ({"norm": "l1"}, "norm l1 linf l2"),
        ({"eps": -0.1}, "eps -0.1"),
        ({"eps": math.inf}, "eps inf"),
        (
            {"eps": 8.0},
            "eps 8.0 linf 8 255",
        ),
        ({"step": 0.0}, "step 0"),
        ({"steps": 0}, "steps 0"),
        ({"restarts": 0}, "restarts 0"),
        ({"restarts": 2}, "restarts 2 start zero"),
        ({"start": "there"}, "start there"),
        ({"keep": "all"}, "keep all"),
        ({"loss": "hinge"}, "loss hinge untargeted targeted random_targeted"),
        ({"loss": "targeted"}, "loss targeted targets"),
        ({"restart": 2}, "restart restarts"),
    ],
)
def test_wrong_settings_are_refused_as_the_study_is_read(settings, message):
    kwargs = {"norm": "linf", "eps": 0.1} | settings
    with pytest.raises(ValueError, match=words(message)):
        TrainingSettings(epochs=1, attack={"call": "efface.training.attack.pgd", "kwargs": kwargs})


def test_a_long_way_is_refused_for_linf_alone():
    network, images = two_classes(), pictures()
    with pytest.raises(ValueError, match=words("0.0313725")):
        pgd(network, images, TARGETS, norm="linf", eps=8.0)
    assert pgd(network, images, TARGETS, norm="l2", eps=8.0).shape == images.shape


def test_a_random_start_without_seeds_is_refused():
    with pytest.raises(ValueError, match=words("seeds")):
        pgd(smooth(), pictures(), TARGETS, norm="l2", eps=0.1, start="random")


def test_a_random_class_without_seeds_is_refused():
    with pytest.raises(ValueError, match=words("seeds random_targeted")):
        pgd(smooth(), pictures(), TARGETS, norm="l2", eps=0.1, loss="random_targeted")


def test_the_binary_loss_is_refused_for_more_classes_and_every_loss_for_one():
    with pytest.raises(ValueError, match=words("loss binary_hybrid 3")):
        pgd(smooth(), pictures(), TARGETS, norm="l2", eps=0.1, loss="binary_hybrid")
    for loss in ("untargeted", *AIMED):
        with pytest.raises(ValueError, match=words("attack.pgd one class")):
            pgd(smooth(1), pictures(), TARGETS * 0, norm="l2", eps=0.1, loss=loss, seeds=seeds())
    with pytest.raises(ValueError, match=words("attack.minimal one class")):
        minimal(smooth(1), pictures(), TARGETS * 0, norm="l2", step=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"norm": "l1"}, "norm l1"), ({"step": 0.0}, "step 0"), ({"steps": 0}, "steps 0")],
)
def test_wrong_settings_of_the_least_change_are_refused_as_the_study_is_read(settings, message):
    kwargs = {"norm": "l2", "step": 0.1} | settings
    with pytest.raises(ValueError, match=words(message)):
        TrainingSettings(epochs=1, attack={"call": "efface.training.attack.minimal", "kwargs": kwargs})
