"""Synthetic vectors: their moments, their levels, and what a network makes of them."""

import pytest
import torch
from scipy.stats import binomtest, chisquare, kstest

from efface.data.synthetic import blockwise, one_signal, stored
from efface.methods.gradient import gradient
from efface.models.small import mlp
from small.messages import words


def vectors(split):
    """x, exactly as it was before it was kept."""
    return ((split.images.double() - 128) / 127)[:, 0, 0]


def signs(split):
    return 2.0 * split.targets.double() - 1


def test_one_signal_is_a_signed_unit_vector_at_an_even_place():
    made = one_signal()
    assert [len(made[name]) for name in ("train", "test")] == [10_000, 1_000]
    for split in made.values():
        x, mask = vectors(split), split.masks[:, 0]
        assert split.shape == (1, 1, 10)
        assert split.images.unique().tolist() == [1, 128, 255]
        assert (mask.sum(1) == 1).all()
        assert torch.equal(x, mask * signs(split)[:, None])
        assert chisquare(mask.sum(0).numpy()).pvalue > 0.001
        assert binomtest(int(split.targets.sum()), len(split)).pvalue > 0.001
        assert chisquare([int(mask[split.targets == k, 0].sum()) + 0.0 for k in (0, 1)]).pvalue > 0.001
    x = vectors(made["train"])
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(10).double() / 10, atol=0.012, rtol=0)  # 4 standard errors
    torch.testing.assert_close(x.mean(0), torch.zeros(10).double(), atol=0.013, rtol=0)
    assert (x.norm(dim=1) == 1).all()


def test_one_signal_in_general():
    split = one_signal(d=6, signals=2, amplitude=[0.2, 0.6], first=0.3, n_train=4000, n_test=2)["train"]
    x, mask = vectors(split), split.masks[:, 0]
    alone = mask[:, 0]
    assert binomtest(int(alone.sum()), len(split), 0.3).pvalue > 0.001
    assert (mask[alone].sum(1) == 1).all()  # the first coordinate and no other
    assert (mask[~alone].sum(1) == 2).all()
    assert chisquare(mask[~alone, 1:].sum(0).numpy()).pvalue > 0.001
    pairs = torch.stack([mask[:, i] & mask[:, j] for i in range(1, 6) for j in range(i)], 1).sum(0)
    assert chisquare(pairs[pairs > 0].numpy()).pvalue > 0.001
    assert int((pairs > 0).sum()) == 10
    assert torch.equal(x != 0, mask)
    assert torch.equal(x.sign(), mask * signs(split)[:, None])
    sizes = x.abs()[mask]
    assert kstest((sizes - 0.2).numpy() / 0.4, "uniform").pvalue > 0.001
    assert one_signal(d=3, first=1.0, n_train=50, n_test=2)["train"].masks[:, 0, 0].all()
    assert not one_signal(d=3, first=0.0, n_train=50, n_test=2)["train"].masks[:, 0, 0].any()


@pytest.mark.parametrize("amplitude", [(1.0, 1.0), (0.5, 2.0), (3.0, 3.0)])
def test_several_signals_are_drawn_as_the_reference_draws_them(amplitude):
    """RandomSignalCoordinate: that many coordinates, chosen without replacement, coordinate 0 like all others."""
    d, signals, (low, high) = 6, 3, amplitude
    split = one_signal(d=d, signals=signals, amplitude=amplitude, n_train=4000, n_test=2)["train"]
    x, mask = vectors(split), split.masks[:, 0]
    assert (mask.sum(1) == signals).all()
    assert torch.equal(x != 0, mask)
    assert chisquare(mask.sum(0).numpy()).pvalue > 0.001
    pairs = torch.stack([mask[:, i] & mask[:, j] for i in range(d) for j in range(i)], 1).sum(0)
    assert len(pairs) == 15
    assert chisquare(pairs.numpy()).pvalue > 0.001
    assert torch.equal(x.sign(), mask * signs(split)[:, None])
    sizes = x.abs()[mask] * max(1.0, high)
    if low == high:
        torch.testing.assert_close(sizes, torch.full_like(sizes, low))
    else:
        assert kstest((sizes - low).numpy() / (high - low), "uniform").pvalue > 0.001
    assert one_signal(d=3, signals=3, n_train=9, n_test=2)["train"].masks.all()


def test_blockwise_without_noise_is_the_class_in_one_of_the_first_half():
    split = blockwise(n_train=2000, n_test=2)["train"]
    x, mask = vectors(split), split.masks[:, 0]
    assert torch.equal(x, mask * signs(split)[:, None])
    assert not mask[:, 5:].any()
    assert chisquare(mask[:, :5].sum(0).numpy()).pvalue > 0.001
    assert ((x.sum(1) > 0) == (split.targets == 1)).all()  # equal weights are always right


@pytest.mark.parametrize(("size", "eta"), [(1, 0.5), (4, 0.3), (3, 1.0)])
def test_blockwise_noise_fills_the_ball_in_every_block(size, eta):
    split = blockwise(d=4, size=size, relevant=1, eta=eta, n_train=3000, n_test=2)["train"]
    scale = max(1.0, size**-0.5 + eta)
    blocks = vectors(split).unflatten(1, (4, size)) * scale
    assert split.masks[:, 0].unflatten(1, (4, size))[:, 0].all()
    assert not split.masks[:, 0, size:].any()
    blocks[:, 0] -= signs(split)[:, None] * size**-0.5
    for block in blocks.unbind(1):
        lengths = block.norm(dim=1) / eta
        assert lengths.max() < 1 + 3 / 254 * scale * size**0.5 / eta
        assert abs(float((lengths**size).mean()) - 0.5) < 0.03  # evenly in the ball
        torch.testing.assert_close(block.mean(0) / eta, torch.zeros(size).double(), atol=0.05, rtol=0)
        cov = block.T @ block / len(block) / eta**2
        torch.testing.assert_close(cov, torch.eye(size).double() / (size + 2), atol=0.03, rtol=0)


def test_a_vector_depends_on_seed_split_and_number_alone():
    for make in (one_signal, blockwise):
        few, many, other = (make(n_train=n, n_test=9, seed=seed)["train"] for n, seed in ((20, 3), (50, 3), (50, 4)))
        assert torch.equal(few.images, many.images[:20])
        assert torch.equal(few.targets, many.targets[:20])
        assert torch.equal(few.masks, many.masks[:20])
        assert not torch.equal(many.images, other.images)
        test = make(n_train=20, n_test=20, seed=3)["test"]
        assert not torch.equal(few.images, test.images)
        cut = make(n_train=50, n_test=9, limit=10, validation=0.2, seed=3)["train"]
        assert cut.targets.bincount().tolist() == [5, 5]
        assert len(cut.validation) == 2
        assert (vectors(cut) != 0)[cut.masks[:, 0]].all()


def test_what_is_stored_comes_back():
    x = torch.linspace(-1, 1, 255, dtype=torch.float64)[None].float()
    levels = stored(x)
    assert levels.flatten().tolist() == list(range(1, 256))
    network = mlp(in_features=255, widths=[], centred=True)
    torch.testing.assert_close(network.normalise(levels.float() / 255)[:, 0, 0], x, atol=2e-7, rtol=0)


def test_a_linear_network_is_right_and_its_gradient_is_its_weights():
    split = one_signal(n_train=10, n_test=200)["test"]
    network = mlp(in_features=10, widths=[], centred=True, num_classes=2)
    with torch.no_grad():
        network.linear.weight[:] = torch.stack([-torch.ones(10), torch.ones(10)])
        network.linear.bias.zero_()
    images = split.images.float() / 255
    assert torch.equal(network(images).argmax(1), split.targets)
    maps = gradient(network, images, split.targets)[:, 0, 0]
    torch.testing.assert_close(maps, (signs(split)[:, None] * 255 / 127).float().expand_as(maps))


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (one_signal, {"d": 1}, "one_signal d 1 2"),
        (one_signal, {"d": 0}, "d 0"),
        (one_signal, {"signals": 11}, "signals 11 10"),
        (one_signal, {"signals": 0}, "signals 0 10"),
        (one_signal, {"signals": 10, "first": 0.2}, "signals 10 9"),
        (one_signal, {"amplitude": [0.6, 0.2]}, "amplitude [0.6, 0.2]"),
        (one_signal, {"amplitude": [0.0, 0.5]}, "amplitude"),
        (one_signal, {"amplitude": [0.5, float("inf")]}, "amplitude inf"),
        (one_signal, {"first": 1.1}, "first 1.1"),
        (one_signal, {"n_train": 1}, "n_train 1 2"),
        (blockwise, {"relevant": 11}, "relevant 11 10"),
        (blockwise, {"size": 0}, "size 0"),
        (blockwise, {"eta": -0.1}, "eta -0.1"),
        (blockwise, {"n_test": 0}, "n_test 0 2"),
    ],
)
def test_settings_out_of_range(make, kwargs, message):
    with pytest.raises(ValueError, match=words(message)):
        make(**kwargs)
