"""Attention methods: by hand on toy networks, against a slow computation from the formulas, and across libraries."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.overrides import _get_current_function_mode_stack as function_modes

from efface.base import draws
from efface.methods import attention
from efface.methods.calling import MethodCall, attribute
from efface.models.adapt import Adaptation, adapted
from efface.models.tokens import TokenGrid
from efface.plug import words
from efface.plug.call import Call
from small.attending import vision
from small.batches import all_inputs, explain, uniform_images
from small.elsewhere import timm, transformers
from small.networks import Tiny, seeded, state_of

METHODS = {
    "attention_rollout": attention.attention_rollout,
    "attention_grad_cam": attention.attention_grad_cam,
    "generic_attention": attention.generic_attention,
    "legrad": attention.legrad,
    "tam": partial(attention.tam, steps=4),
    "bi_attn": partial(attention.bi_attn, steps=4, start=1),
    "vit_cx": partial(attention.vit_cx, distance=0.3, score="logit"),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
of_a_class = pytest.mark.parametrize("name", [name for name in METHODS if name != "attention_rollout"])
SIZE = (12, 8)


def inputs(count=4):
    found = all_inputs(count, text="attention")
    return found | {"images": uniform_images(count, *SIZE), "targets": torch.arange(count) % 3}


def large(small, size=SIZE):
    """Bilinear, with pixel centres as the grid: n y x to n h w."""
    return F.interpolate(small[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


# By hand


class Given(nn.Module):
    """Attention with these weights in each block, and nothing else: x = A_2 A_1 x, read at the class token.

    The tokens are the class token, with these values, and the pixels of 2 x 2 images.
    """

    def __init__(self, weights, class_token, head):
        super().__init__()
        self.scores = [each.log() for each in weights]
        self.token, self.head = class_token, head
        self.seen = nn.Identity()

    def forward(self, images):
        tokens = torch.cat([self.token.expand(len(images), 1, -1), images.flatten(2).mT], 1)
        for scores in self.scores:
            tokens = self.seen(scores.expand(len(images), 1, 5, 5).softmax(-1)[:, 0] @ tokens)
        return tokens[:, 0] @ self.head


def given_network():
    """Two blocks whose attention is known, with its weights; a head for two classes."""
    first = (
        torch.tensor(
            [[4, 2, 2, 1, 1], [1, 5, 2, 1, 1], [2, 2, 2, 2, 2], [1, 1, 1, 6, 1], [3, 1, 1, 1, 4]], dtype=torch.float64
        )
        / 10
    )
    second = (
        torch.tensor(
            [[2, 1, 1, 5, 1], [2, 2, 2, 2, 2], [1, 1, 6, 1, 1], [1, 2, 1, 2, 4], [2, 3, 2, 1, 2]], dtype=torch.float64
        )
        / 10
    )
    token = torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64)
    head = torch.tensor([[1.0, -1.0], [2.0, 0.5], [-1.0, 1.0]], dtype=torch.float64)
    network = Given([first, second], token, head)
    return adapted(network.eval(), Adaptation(tokens=TokenGrid(1, 2, 2)), (3, 2, 2))[0], first, second


def test_rollout_of_two_blocks_by_hand():
    """Row 0 of (I + A_2) (I + A_1) / 4 over the patches, worked out on paper.

    1.2 (.2, .2, .1, .1) + .1 (1.5, .2, .1, .1) + .1 (.2, 1.2, .2, .2) + .5 (.1, .1, 1.6, .1) + .1 (.1, .1, .1, 1.4)
    = (.47, .44, .96, .34), and a quarter of it.
    """
    network, *_ = given_network()
    found = attention.attention_rollout(network, uniform_images(2, 2), torch.zeros(2).long())
    expected = torch.tensor([[0.1175, 0.11], [0.24, 0.085]], dtype=torch.float64)
    torch.testing.assert_close(found, expected.expand(2, 2, 2))


def test_rollout_from_the_second_block_on_is_half_of_its_row():
    network, *_ = given_network()
    found = attention.attention_rollout(network, uniform_images(1, 2), torch.zeros(1).long(), start=1)
    torch.testing.assert_close(found, torch.tensor([[[0.05, 0.05], [0.25, 0.05]]], dtype=torch.float64))


def test_generic_attention_of_one_head_with_identity_values_in_closed_form():
    """x_2 = A_2 A_1 x: d logit / d A_2[0, j] = head . (A_1 x)_j, and d logit / d A_1[i, j] = A_2[0, i] head . x_j."""
    network, first, second = given_network()
    images = uniform_images(2, 2)
    for row, image in enumerate(images):
        x = torch.cat([network.token[None], image.flatten(1).T])
        for target in (0, 1):
            evidence = network.head[:, target]
            c_1 = (first * second[0][:, None] * (x @ evidence)[None, :]).relu()
            c_2 = torch.zeros(5, 5, dtype=torch.float64)
            c_2[0] = (second[0] * (first @ x @ evidence)).relu()
            eye = torch.eye(5, dtype=torch.float64)
            expected = ((eye + c_2) @ (eye + c_1))[0, 1:].view(1, 2, 2)
            found = attention.generic_attention(network, images[row : row + 1], torch.tensor([target]))
            torch.testing.assert_close(found, expected)


# Against a slow computation


class Slow:
    """`Vision` of one image, written out: attention of all blocks with its graph, tokens after each block, logits."""

    def __init__(self, network, image):
        self.network = network
        tokens = network.embed(image[None] - 0.5).flatten(2).mT[0]
        tokens = torch.cat([network.prefix[0], tokens]) + network.positions[0]
        self.attention, self.read, self.after, self.alone = [], [], [], []
        for block in network.blocks:
            before = tokens
            tokens = self.block(block, before, self.attention, self.read)
            self.after.append(tokens)
            own = []
            self.alone.append((own, self.block(block, before.detach(), own, [])))
        self.logits = self.head(tokens)

    @staticmethod
    def block(block, tokens, attention, read):
        own = block.attn
        normed = block.norm1(tokens)
        read.append(normed)
        q, k, v = (
            normed @ part.T + bias for part, bias in zip(own.qkv.weight.chunk(3), own.qkv.bias.chunk(3), strict=True)
        )
        width = q.shape[1] // own.heads
        weights = torch.stack(
            [
                torch.softmax(q[:, each : each + width] @ k[:, each : each + width].T / width**0.5, 1)
                for each in range(0, q.shape[1], width)
            ]
        ).requires_grad_()
        attention.append(weights)
        mixed = torch.cat([one @ v[:, i * width : (i + 1) * width] for i, one in enumerate(weights)], 1)
        tokens = tokens + own.out(mixed)
        return tokens + block.mlp(block.norm2(tokens))

    def head(self, tokens):
        normed = self.network.norm(tokens)
        return self.network.head(normed[0] if self.network.reads == "class" else normed.mean(0))

    def gradients(self, target, attention=None):
        return torch.autograd.grad(self.logits[target], attention or self.attention, retain_graph=True)


def rows(network, count):
    """Numbers of the tokens that the head reads."""
    return [0] if network.reads == "class" else range(count)


def slow_rollout(network, image, target):
    attention = Slow(network, image).attention
    eye = torch.eye(attention[0].shape[1], dtype=torch.float64)
    product = eye
    for weights in attention:
        mixed = weights.mean(0) + eye
        product = mixed / mixed.sum(1, keepdim=True) @ product
    return sum(product[row] for row in rows(network, len(eye))) / len(rows(network, len(eye)))


def slow_grad_cam(network, image, target):
    slow, prefix = Slow(network, image), network.prefix.shape[1]
    weights, slopes = slow.attention[-1], slow.gradients(target)[-1]
    read, total = rows(network, weights.shape[1]), 0
    for one, slope in zip(weights, slopes, strict=True):
        importance = sum(slope[row, prefix:].mean() for row in read) / len(read)
        total = total + importance * sum(one[row] for row in read) / len(read)
    return total.clamp(min=0)


def slow_generic(network, image, target):
    slow = Slow(network, image)
    relevance = torch.eye(slow.attention[0].shape[1], dtype=torch.float64)
    for weights, slopes in zip(slow.attention, slow.gradients(target), strict=True):
        relevance = relevance + (weights * slopes).clamp(min=0).mean(0) @ relevance
    read = rows(network, len(relevance))
    return sum(relevance[row] for row in read) / len(read)


def slow_legrad(network, image, target):
    maps = []
    for own, tokens in Slow(network, image).alone:
        score = network.head(network.norm(tokens.mean(0)))[target]
        (slopes,) = torch.autograd.grad(score, own)
        maps.append(slopes.clamp(min=0).mean((0, 1)))
    return sum(maps) / len(maps)


def slow_weights(network, image, target, steps):
    """E relu(mean over alpha of the last block's gradient), from a black image on."""
    total = 0
    for step in range(steps):
        slow = Slow(network, image * (step / (steps - 1)))
        total = total + slow.gradients(target, [slow.attention[-1]])[0]
    return (total / steps).clamp(min=0).mean(0)


def slow_tam(network, image, target, steps=4):
    attention = [weights.mean(0) for weights in Slow(network, image).attention]
    weights, found = slow_weights(network, image, target, steps), []
    for row in rows(network, len(weights)):
        state = attention[-1][row]
        for each in attention[-2::-1]:
            state = state + state @ each
        found.append(state * weights[row])
    return sum(found) / len(found)


def slow_bi_attn(network, image, target, steps=4, start=1):
    slow = Slow(network, image)
    relevance = torch.eye(slow.attention[0].shape[1], dtype=torch.float64)
    for weights, slopes in list(zip(slow.attention, slow.gradients(target), strict=True))[start:]:
        heads = [(one.T @ slope).abs().mean() for one, slope in zip(weights, slopes, strict=True)]
        mixed = sum(head / sum(heads) * one for head, one in zip(heads, weights, strict=True))
        relevance = relevance + mixed @ relevance
    found = relevance * slow_weights(network, image, target, steps)
    read = rows(network, len(relevance))
    return sum(found[row] for row in read) / len(read)


def slow_vit_cx(network, image, target, seed):
    """With masks that are joined one by one, as long as no two of a cluster are 0.3 apart."""
    slow, prefix, (h, w) = Slow(network, image), network.prefix.shape[1], SIZE
    channels = slow.read[-1][prefix:].T.detach().view(-1, 1, h // 4, w // 4)
    masks = [large(scaled(each))[0] for each in channels]
    unit = [each / each.square().sum().sqrt() for each in masks]
    clusters = [[number] for number in range(len(masks))]
    while len(clusters) > 1:
        apart = {
            (i, j): max(1 - float((unit[a] * unit[b]).sum()) for a in clusters[i] for b in clusters[j])
            for i in range(len(clusters))
            for j in range(i)
        }
        i, j = min(apart, key=apart.get)
        if apart[i, j] >= 0.3:
            break
        clusters[j] += clusters.pop(i)
    sums = [scaled(sum(masks[each] for each in cluster)) for cluster in sorted(clusters, key=min)]
    asked = [Slow(network, image).logits.softmax(0)[target].detach()]
    total = 0
    for number, mask in enumerate(sums):
        noise = 0.1 * draws.normal(draws.fold(seed[None], number), image.shape)[0].double() * (1 - mask)
        seen, other = (
            Slow(network, each).logits.softmax(0)[target].detach() for each in (image * mask + noise, image + noise)
        )
        total = total + (seen - other + asked[0]) * mask
    return total / sum(sums), len(sums)


def scaled(mask):
    return (mask - mask.min()) / (mask.max() - mask.min())


SLOW = {
    "attention_rollout": slow_rollout,
    "attention_grad_cam": slow_grad_cam,
    "generic_attention": slow_generic,
    "legrad": slow_legrad,
    "tam": slow_tam,
    "bi_attn": slow_bi_attn,
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prefix": 0, "reads": "mean"},
        {"prefix": 2, "heads": 3},
        {"prefix": 2, "reads": "mean", "depth": 2, "seed": 3},
    ],
    ids=["class token", "mean of patches", "two prefix tokens", "mean of all"],
)
def test_maps_are_those_of_the_formula_written_out(name, settings):
    network, (images, targets) = vision(**settings), (inputs()["images"], inputs()["targets"])
    prefix = network.prefix.shape[1]
    expected = [
        SLOW[name](network, *each)[prefix:].detach().view(1, 3, 2) for each in zip(images, targets, strict=True)
    ]
    found = METHODS[name](network, images, targets)
    torch.testing.assert_close(found, large(torch.cat(expected)))
    assert found.sum() > 0
    assert found.min() >= 0


def test_the_first_block_that_is_used_can_be_chosen():
    network, images = vision(), inputs()["images"][:1]
    whole = Slow(network, images[0])
    for method, expected in (
        (attention.legrad, lambda: slow_legrad_of_last(whole, network)),
        (attention.tam, lambda: whole.attention[-1].mean(0)[0] * slow_weights(network, images[0], 1, 20)[0]),
    ):
        found = method(network, images, torch.tensor([1]), start=2)
        torch.testing.assert_close(found, large(expected()[1:].detach().view(1, 3, 2)))


def slow_legrad_of_last(slow, network):
    own, tokens = slow.alone[-1]
    (slopes,) = torch.autograd.grad(network.head(network.norm(tokens.mean(0)))[1], own)
    return slopes.clamp(min=0).mean((0, 1))


def test_the_line_may_begin_at_another_grey():
    network, images = vision(), inputs()["images"][:1]
    ends = [Slow(network, each) for each in (images[0], torch.full_like(images[0], 0.5))]
    slopes = sum(slow.gradients(2, [slow.attention[-1]])[0] for slow in ends) / 2
    state = ends[0].attention[-1].mean(0)[0]
    expected = (state * slopes.clamp(min=0).mean(0)[0])[1:].detach().view(1, 3, 2)
    found = attention.tam(network, images, torch.tensor([2]), steps=2, start=2, baseline=0.5)
    torch.testing.assert_close(found, large(expected))


@pytest.mark.parametrize("settings", [{}, {"prefix": 0, "reads": "mean"}], ids=["class token", "mean of patches"])
def test_vit_cx_is_that_of_its_formula_written_out(settings):
    network, given = vision(**settings), inputs(2)
    found = explain(METHODS["vit_cx"], network, given, score="probability")
    for row, (image, target, seed) in enumerate(zip(given["images"], given["targets"], given["seeds"], strict=True)):
        expected, count = slow_vit_cx(network, image, target, seed)
        torch.testing.assert_close(found[row], expected)
        assert 1 < count < 12  # of twelve channels


def test_the_layer_of_vit_cx_is_norm1_of_the_last_block_and_another_can_be_named():
    network, given = vision(), inputs(2)
    found = {name: attention.vit_cx(network, given["images"], given["targets"], layer=name, noise=0.0)
             for name in (None, "blocks.2.norm1", "blocks.1")}  # fmt: skip
    torch.testing.assert_close(found[None], found["blocks.2.norm1"])
    assert not torch.allclose(found[None], found["blocks.1"])


# What holds for every method


@every_method
@pytest.mark.parametrize("max_batch", [1, 2, 3, 7])
def test_a_batch_gives_the_maps_of_its_images_alone(method, max_batch):
    network, given = vision(), inputs(5)
    singles = [
        explain(method, network, {key: rows[i : i + 1] for key, rows in given.items()}, max_batch=1) for i in range(5)
    ]
    passed = []
    network.embed.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    found = explain(method, network, given, max_batch=max_batch)
    torch.testing.assert_close(found, torch.cat(singles), rtol=1e-9, atol=1e-12)
    assert max(passed) <= max(max_batch, 2)  # two images of noise tell which tokens the head reads
    assert not found.requires_grad


@every_method
def test_fused_and_written_attention_have_the_same_maps(method):
    given = inputs()
    found = [explain(method, vision(how=how), given) for how in ("fused", "written")]
    torch.testing.assert_close(*found)


OF_TRANSFORMERS = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "blocks.": "vit.layers.",
    ".norm1": ".layernorm_before",
    ".norm2": ".layernorm_after",
    "attn.proj": "attention.o_proj",
    "attn.": "attention.",
    "head": "classifier",
}


def renamed(name):
    """The name that transformers has for one of timm's."""
    name = f"vit.layer{name}" if name.startswith("norm.") else name
    for old, new in OF_TRANSFORMERS.items():
        name = name.replace(old, new)
    return name


def three_libraries():
    """The same weights as a network of timm, of torchvision and of transformers."""
    first = seeded(
        lambda: timm.create_model(
            "vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=2, num_heads=2, num_classes=3
        )
    )
    for value in first.parameters():
        value.data = seeded(lambda value=value: torch.randn_like(value), value.numel()) / 2
    state = first.state_dict()
    second = torchvision.models.VisionTransformer(32, 16, 2, 2, 12, 48, num_classes=3)
    names = ["cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"]
    names += [name for name in state if name not in names]
    second.load_state_dict(
        {own: state[name] for own, name in zip(second.state_dict(), names, strict=True)}
    )  # in the same order otherwise
    config = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config |= {"image_size": 32, "patch_size": 16, "num_labels": 3, "layer_norm_eps": 1e-6}
    third = transformers.ViTForImageClassification(transformers.ViTConfig(**config))
    split = {}
    for name, value in state.items():
        parts = zip("qkv", value.chunk(3), strict=True) if "qkv" in name else [("", value)]
        split |= {name.replace("qkv", f"{part}_proj"): each for part, each in parts}
    third.load_state_dict({renamed(name): value for name, value in split.items()})
    return [adapted(each.eval(), Adaptation(), (3, 32, 32))[0].double() for each in (first, second, third)]


@every_method
def test_the_same_weights_have_the_same_maps_in_every_library(method):
    images, targets = uniform_images(2, 32), torch.tensor([2, 0])
    given = inputs(2) | {"images": images, "targets": targets}
    first, *others = (explain(method, network, given) for network in three_libraries())
    assert first.std() > 0
    for other in others:
        torch.testing.assert_close(other, first)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_network_and_torch_are_as_before(method, mode):
    network, given = vision(), inputs()
    expected = explain(method, network, given)
    network.train()
    network.head.bias.requires_grad_(False)
    given["images"].requires_grad_()
    before, modes = state_of(network, *given.values()), len(function_modes())
    with mode():
        found = explain(method, network, given)
    torch.testing.assert_close(found, expected)
    assert state_of(network, *given.values()) == before
    assert len(function_modes()) == modes


@every_method
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_network_and_torch_are_as_before_an_exception(method, calls):
    network, given, passed = vision().train(), inputs(), []
    explain(method, network, given)

    def fail(module, arguments):
        passed.append(module)
        if len(passed) > calls:
            raise RuntimeError("out of memory")

    network.head.register_forward_pre_hook(fail)
    before = state_of(network)
    with pytest.raises(RuntimeError, match="out of memory"):
        explain(method, network, given, max_batch=1)
    assert function_modes() == []
    assert state_of(network) == before


@of_a_class
def test_one_hot_weights_are_the_class_and_other_classes_have_other_maps(name):
    network, given = vision(), inputs()
    found = explain(METHODS[name], network, given)
    hot = given | {"targets": F.one_hot(given["targets"], 3).double()}
    torch.testing.assert_close(explain(METHODS[name], network, hot), found)
    assert not torch.allclose(explain(METHODS[name], network, given | {"targets": 2 - given["targets"]}), found)


@of_a_class
def test_the_score_can_be_chosen(name):
    """For two classes, the gradient of the log probability is (1 - p) times that of the difference of the logits."""
    network, given = vision(classes=2), inputs()
    given["targets"] %= 2
    difference = F.one_hot(given["targets"], 2).double() * 2 - 1
    found = explain(METHODS[name], network, given, score="log_probability", **few(METHODS[name]))
    other = explain(METHODS[name], network, given | {"targets": difference}, **few(METHODS[name]))
    if name == "attention_grad_cam":  # linear in the gradient
        against = network(given["images"]).detach().softmax(1).gather(1, 1 - given["targets"][:, None])
        torch.testing.assert_close(found, other * against[:, :, None])
    assert found.abs().sum() > 0
    assert not torch.allclose(found, other)


def few(method):
    """Settings of a short run."""
    return {"steps": 2} if "steps" in inspect.signature(method).parameters else {}


def test_rollout_says_that_it_is_class_blind_and_it_is():
    network, given = vision(), inputs()
    found = [attention.attention_rollout(network, given["images"], given["targets"] * factor) for factor in (0, 1)]
    assert torch.equal(*found)
    (said,) = attention.attention_rollout.doubts(network, given["images"], given["targets"], found[0])
    assert "class-blind" in said
    assert "class-blind" in attention.attention_rollout.__doc__


@pytest.mark.parametrize("name", ["attention_rollout", "attention_grad_cam", "generic_attention", "legrad"])
def test_the_classes_may_come_from_the_same_pass(name):
    network, given = vision(), inputs()
    classes = network(given["images"]).detach().argmax(1)
    asked = []

    def predicted(logits):
        asked.append(logits.detach())
        return logits.argmax(1)

    found = METHODS[name](network, given["images"], 1 - given["targets"], classes_of=predicted, max_batch=3)
    torch.testing.assert_close(torch.cat(asked), network(given["images"]).detach())
    torch.testing.assert_close(found, METHODS[name](network, given["images"], classes))


@pytest.mark.parametrize("name", METHODS)
def test_a_study_names_it_by_its_word(name):
    assert words.expand("method", name) == f"efface.methods.attention.{name}"
    network, given = vision(), inputs()
    kwargs = {"start": 1} if name == "bi_attn" else {}
    call = MethodCall(name, Call(call=words.expand("method", name), kwargs=kwargs))
    found = attribute(call, network, given["images"], given["targets"], seeds=given["seeds"], max_batch=3)
    assert found[name].shape == (4, *SIZE)


# Refusals


@every_method
def test_a_network_without_attention_is_refused(method):
    with pytest.raises(ValueError, match="Tiny computes no attention that efface can see"):
        explain(method, Tiny(3, 4).double().eval(), inputs())


@every_method
def test_a_network_whose_logits_have_no_gradient_is_refused(method):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = vision()

        def forward(self, images):
            return self.inner(images).detach()

    with pytest.raises(ValueError, match="Cut returns logits without a gradient"):
        explain(method, Cut().eval(), inputs())


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (attention.attention_rollout, {"start": 3}, "start is 3, but the network has 3 blocks"),
        (attention.legrad, {"start": -1}, "expected 0 to 2"),
        (attention.bi_attn, {}, "start is 3, but the network has 3 blocks"),
        (attention.tam, {"start": 4}, "start is 4"),
        (attention.tam, {"steps": 1}, "steps is 1; expected at least 2"),
        (attention.generic_attention, {"max_batch": 0}, "max_batch is 0"),
        (attention.vit_cx, {"distance": 0.0}, "distance is 0.0; expected above 0"),
        (attention.vit_cx, {"noise": -0.1}, "noise is -0.1; expected at least 0"),
        (attention.vit_cx, {"seeds": None}, "seeds are missing"),
        (attention.vit_cx, {"layer": "head"}, "layer 'head' has no tokens n x 7"),
        (attention.vit_cx, {"layer": "nowhere"}, "has no such layer"),
    ],
)
def test_wrong_settings_are_refused(method, settings, said):
    with pytest.raises(ValueError, match=said):
        explain(method, vision(), inputs(), **settings)


# A head that pools the tokens by attention


def pooling():
    """timm's SigLIP, small, in float64, whose attention differs between the tokens."""
    made = timm.create_model(
        "vit_base_patch16_siglip_224", num_classes=3, img_size=64, embed_dim=12, depth=3, num_heads=2
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.double().eval()


def attention_by_hand(network, images, targets):
    """Attention and its gradients, of the blocks and of the pooling head, by timm's own layers written out."""
    tokens, found = network.patch_embed(images) + network.pos_embed, []

    def mixed(q, k, v, scale):
        found.append(((q @ k.mT) * scale).softmax(-1))
        found[-1].retain_grad()
        return (found[-1] @ v).transpose(1, 2).flatten(2)

    for block in network.blocks:
        q, k, v = block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        tokens = tokens + block.attn.proj(mixed(q, k, v, block.attn.scale))
        tokens = tokens + block.mlp(block.norm2(tokens))
    pool, tokens = network.attn_pool, network.norm(tokens)
    q = pool.q(pool.latent.expand(len(images), -1, -1)).unflatten(-1, (2, 6)).transpose(1, 2)
    k, v = pool.kv(tokens).unflatten(-1, (2, 2, 6)).permute(2, 0, 3, 1, 4)
    read = pool.proj(mixed(q, k, v, pool.scale))
    read = (read + pool.mlp(pool.norm(read)))[:, 0]
    logits = network.head(network.fc_norm(read))
    assert torch.allclose(logits, network(images))
    logits.gather(1, targets[:, None]).sum().backward()
    return [each.detach() for each in found], [each.grad for each in found]


@pytest.mark.parametrize("name", ["attention_rollout", "generic_attention", "attention_grad_cam"])
def test_a_pooling_head_is_followed_as_the_formulas_have_it(name):
    network = seeded(pooling, 3)
    images, targets = uniform_images(6, 64).double(), torch.tensor([0, 1, 2] * 2)
    weights, slopes = attention_by_hand(network, images, targets)
    eye = torch.eye(16, dtype=torch.float64)
    if name == "attention_rollout":
        row = weights[-1].mean(1)
        for each in reversed(weights[:-1]):
            row = row @ (each.mean(1) + eye) / 2
    elif name == "generic_attention":
        relevant = [(a * g).clamp(min=0).mean(1) for a, g in zip(weights, slopes, strict=True)]
        whole = eye.expand(6, 16, 16)
        for each in relevant[:-1]:
            whole = whole + each @ whole
        row = relevant[-1] @ whole
    else:
        row = (slopes[-1].mean(3, keepdim=True) * weights[-1]).sum(1).clamp(min=0)
    wanted = F.interpolate(row.reshape(6, 1, 4, 4), size=(64, 64), mode="bilinear")[:, 0]
    found = METHODS[name](network, images, targets)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert found.abs().max() > 0


@pytest.mark.parametrize("name", ["legrad", "tam", "bi_attn", "vit_cx"])
def test_other_methods_refuse_a_pooling_head(name):
    with pytest.raises(ValueError, match="pools 16 tokens for the head"):
        (partial(METHODS[name], noise=0.0) if name == "vit_cx" else METHODS[name])(
            pooling(), uniform_images(1, 64).double(), torch.tensor([0])
        )
