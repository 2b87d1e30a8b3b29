"""The attention of every block, made visible; which tokens the head reads; the modules of the blocks."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.overrides import _get_current_function_mode_stack as function_modes

from efface.models.adapt import Adaptation, adapted
from efface.models.attended import attended
from efface.models.attention import visible_attention
from efface.models.attention_blocks import Block, blocks_of
from efface.plug.path import resolve
from efface.plug.words import expand
from small.attending import vision
from small.batches import uniform_images, uniform_numbers
from small.elsewhere import timm, transformers
from small.networks import Tiny, seeded, state_of

WAYS = ("fused", "written", "weights", "heads", "hidden")


def logits(network, images):
    answer = network(images)
    return getattr(answer, "logits", answer)


def by_timm(name="vit_tiny_patch16_224", *, fused=True, **settings):
    settings = {"img_size": 32, "depth": 2, "num_classes": 3} | settings
    network = seeded(lambda: timm.create_model(name, **settings)).double().eval()
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return network


def by_torchvision():
    network = seeded(lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 12, 12, num_classes=3))
    seeded(lambda: nn.init.normal_(network.heads.head.weight))
    return network.double().eval()


def by_transformers(kind="ViT", **settings):
    small = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = getattr(transformers, f"{kind}Config")(**{"image_size": 32, "patch_size": 16} | small | settings)
    network = seeded(lambda: getattr(transformers, f"{kind}ForImageClassification")(config))
    return adapted(network.eval(), Adaptation(), (3, config.image_size, config.image_size))[0].double()


class Encoder(nn.Module):
    """Patches of 8 x 8 and torch's own encoder, whose layers run fused unless something forbids it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.encoder(self.embed(images).flatten(2).mT).mean(1))


NETWORKS = {
    "timm": by_timm,
    "timm, not fused": lambda: by_timm(fused=False),
    "torchvision": by_torchvision,
    "transformers": by_transformers,
    "transformers, eager": lambda: by_transformers(attn_implementation="eager"),
    "torch's encoder": lambda: seeded(Encoder).double().eval(),
}
every_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)


@every_network
@pytest.mark.parametrize("gradients", [True, False])
def test_logits_are_those_of_the_hidden_attention(build, gradients):
    network, images = build().requires_grad_(False), uniform_images(3, 32)
    expected = logits(network, images)
    with torch.set_grad_enabled(gradients), visible_attention(network, gradients=gradients) as attention:
        found = logits(network, images)
    torch.testing.assert_close(found.detach(), expected)
    count = attended(network, images).grid.total
    assert [each.shape for each in attention] == [(3, attention[0].shape[1], count, count)] * 2
    for each in attention:
        torch.testing.assert_close(each.sum(-1), torch.ones_like(each[..., 0]))


@every_network
def test_gradients_are_the_change_of_the_logit_by_a_change_of_the_attention(build):
    """By central differences: the attention of a block is replaced where the network computes it."""
    network, images = build().requires_grad_(False), uniform_images(1, 32)
    with visible_attention(network, gradients=True) as attention:
        gradients = torch.autograd.grad(logits(network, images)[0, 1], attention)
    for number, gradient in enumerate(gradients):
        way = uniform_numbers(*gradient.shape, seed=5) - 0.5
        step, least = (1e-5, 1e-5) if gradient.dtype == torch.float64 else (1e-2, 1e-3)  # transformers' own softmax
        ends = [changed_logit(network, images, number, sign * step * way) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close((gradient * way).sum(), slope, rtol=least, atol=least * 1e-2, check_dtype=False)


def changed_logit(network, images, number, change):
    """A logit of the network with this change of the attention of one block, in place."""
    seen = []

    def see(weights):
        seen.append(weights)
        if len(seen) == number + 1:
            weights += change

    with torch.no_grad(), visible_attention(network, see=see):
        return logits(network, images)[0, 1]


def test_the_same_weights_have_the_same_attention_however_it_is_written():
    plain, images = vision(how="written"), uniform_images(2, 12, 8)
    state = plain.state_dict()
    found = {}
    for how in WAYS:
        network = vision(how=how)
        if how not in ("fused", "written"):
            names = {"qkv.": "inner.in_proj_", "out.": "inner.out_proj."}
            network.load_state_dict({renamed(key, names): value for key, value in state.items()})
        with visible_attention(network) as attention:
            found[how] = [network(images), *attention]
    for each in found.values():
        torch.testing.assert_close(each, found["written"])


def renamed(key, names):
    for old, new in names.items():
        key = key.replace(f"attn.{old}", f"attn.{new}")
    return key


def test_an_attention_without_a_head_axis_has_one_head():
    images = uniform_images(2, 12, 8)
    one, written = vision(heads=1, how="single"), vision(heads=1, how="written")
    found = []
    for network in (one, written):
        network.load_state_dict(written.state_dict())
        with visible_attention(network, gradients=True) as attention:
            score = network(images)[:, 0].sum()
        found.append([*attention, *torch.autograd.grad(score, attention)])
    torch.testing.assert_close(*found)


def drawn(*shape):
    return uniform_numbers(*shape, seed=len(shape)) - 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": drawn(2, 1, 5, 5)},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril(1)},
        {"enable_gqa": True},
    ],
    ids=lambda each: next(iter(each)),
)
def test_masks_scales_and_groups_of_heads_are_torchs_own(settings):
    few = 2 if "enable_gqa" in settings else 4
    q, k, v = drawn(2, 4, 5, 3), 2 * drawn(2, few, 5, 3), drawn(2, few, 5, 3).flip(2)
    with visible_attention(nn.Identity()) as attention:
        found = F.scaled_dot_product_attention(q, k, v, **settings)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, **settings))
    torch.testing.assert_close(attention[0] @ v.repeat_interleave(4 // few, 1), found)


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({}, {}),
        ({"bias": False}, {"need_weights": False}),
        ({"kdim": 3, "vdim": 4}, {"average_attn_weights": False}),
        ({}, {"attn_mask": drawn(5, 5)}),
        ({}, {"attn_mask": drawn(4, 5, 5), "need_weights": False}),
        ({"batch_first": False}, {"attn_mask": torch.ones(2, 2, dtype=torch.bool).triu(1)}),
    ],
)
def test_multi_head_attention_returns_what_torch_returns(settings, given):
    module = seeded(lambda: nn.MultiheadAttention(6, 2, **{"batch_first": True} | settings).double()).eval()
    query = drawn(2, 5, 6)
    key = drawn(2, 5, 3).flip(1) if "kdim" in settings else query
    value = drawn(2, 5, 4) if "vdim" in settings else query
    expected = module(query, key, value, **given)
    with visible_attention(module) as attention:
        found = module(query, key, value, **given)
    torch.testing.assert_close(found, expected)
    assert len(attention) == 1


def test_attention_between_other_tokens_is_seen_too():
    module = seeded(lambda: nn.MultiheadAttention(6, 2, batch_first=True).double()).eval()
    query, key = drawn(2, 1, 6), drawn(2, 5, 6)
    with visible_attention(module) as attention:
        found = module(query, key, key)
    torch.testing.assert_close(found, module(query, key, key))
    assert attention[0].shape == (2, 2, 1, 5)


def test_other_softmaxes_are_not_attention():
    values = drawn(2, 3, 5, 5)
    with visible_attention(nn.Identity()) as attention:
        values.softmax(1)
        values[:, 0].softmax(1)
        values[0, 0].softmax(-1)
        values[:, :, :, 0].softmax(-1)
    assert attention == []


@pytest.mark.parametrize(
    ("settings", "given", "said"),
    [
        ({"add_bias_kv": True}, {}, "bias_k, bias_v"),
        ({"add_zero_attn": True}, {}, "add_zero_attn"),
        ({}, {"key_padding_mask": torch.zeros(2, 5, dtype=torch.bool)}, "key_padding_mask"),
    ],
)
def test_what_is_not_shown_is_refused(settings, given, said):
    module = nn.MultiheadAttention(6, 2, batch_first=True, **settings).double().eval()
    query = drawn(2, 5, 6)
    with pytest.raises(ValueError, match=f"uses {said}, whose attention"), visible_attention(module):
        module(query, query, query, **given)


def test_dropout_and_torchs_hidden_functions_are_refused():
    query = drawn(2, 4, 5, 3)
    with pytest.raises(ValueError, match=r"drops attention with probability 0\.2"), visible_attention(nn.Identity()):
        F.scaled_dot_product_attention(query, query, query, dropout_p=0.2)
    module = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True).double().train()
    with pytest.raises(ValueError, match=r"drops attention with probability 0\.5"), visible_attention(module):
        module(drawn(2, 5, 6), drawn(2, 5, 6), drawn(2, 5, 6))
    with pytest.raises(ValueError, match="calls torch's _native_multi_head"), visible_attention(nn.Identity()):
        torch._native_multi_head_attention(*(drawn(2, 5, 6),) * 3, 6, 2, *(drawn(18, 6), drawn(18)) * 2)  # noqa: SLF001


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning")
def test_a_scripted_network_is_refused_by_name():
    network = nn.Sequential(torch.jit.script(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="traced or scripted"), visible_attention(network):
        pass


@every_network
def test_network_and_torch_are_as_before_also_after_an_exception(build):
    network, images = build(), uniform_images(2, 32)
    before, modes = state_of(network), len(function_modes())
    own = F.scaled_dot_product_attention, F.multi_head_attention_forward, F.softmax, torch.softmax

    def fail(*_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"), visible_attention(network, gradients=True, see=fail):
        network(images)
    assert own == (F.scaled_dot_product_attention, F.multi_head_attention_forward, F.softmax, torch.softmax)
    assert state_of(network) == before
    assert len(function_modes()) == modes


# Which tokens the head reads


@pytest.mark.parametrize(
    ("build", "size", "grid", "read"),
    [
        (by_timm, 32, (1, 2, 2), [0]),
        (by_torchvision, 32, (1, 2, 2), [0]),
        (by_transformers, 32, (1, 2, 2), [0]),
        (NETWORKS["torch's encoder"], 32, (0, 4, 4), range(16)),
        (lambda: by_timm("deit_tiny_distilled_patch16_224"), 32, (2, 2, 2), [0, 1]),
        (lambda: by_timm("vit_medium_patch16_reg4_gap_256"), 32, (4, 2, 2), range(4, 8)),
        (lambda: by_timm("beit_base_patch16_224", embed_dim=12, num_heads=2), 32, (1, 2, 2), range(1, 5)),
        (lambda: by_transformers("Dinov2WithRegisters"), 32, (5, 2, 2), [0, *range(5, 9)]),
    ],
)
def test_the_tokens_that_the_head_reads_are_those_with_a_gradient(build, size, grid, read):
    images = uniform_images(2, size)
    found = attended(build(), images)
    assert found.grid == grid
    assert found.depth == 2
    assert list(found.read) == list(read)


def test_of_a_last_layer_of_zeros_the_first_token_is_taken_and_not_remembered():
    network, images = vision(), uniform_images(2, 12, 8)
    weight = network.head.weight.detach().clone()
    network.reads = "mean"
    network.head.weight.data.zero_()
    assert attended(network, images).read == (0,)
    network.head.weight.data.copy_(weight)
    assert attended(network, images).read == tuple(range(7))


def test_another_head_is_noticed():
    network, images = vision(), uniform_images(2, 12, 8)
    assert attended(network, images).read == (0,)
    network.reads = "mean"
    assert attended(network, images).read == tuple(range(7))


@pytest.mark.parametrize(
    ("build", "side", "said"),
    [
        (lambda: Tiny(3, 4).double(), 16, "Tiny computes no attention that efface can see"),
        (lambda: by_timm("resnet18", img_size=None, depth=None), 32, "ResNet computes no attention"),
        (
            lambda: by_timm("swin_tiny_patch4_window7_224", img_size=56, depth=None, depths=(1, 1), embed_dim=12,
                            num_heads=(2, 2)),
            56,
            "8 x 2 x 49 x 49 for 2 images .it runs inside windows",
        ),
        (
            lambda: by_timm("cait_xxs24_224", embed_dim=12, num_heads=2),
            32,
            "another attention is between 5 tokens",
        ),
        (
            lambda: by_timm("vit_base_patch16_siglip_224", embed_dim=12, num_heads=2),
            32,
            "attention 2 of VisionTransformer pools 4 tokens for the head",
        ),
    ],
    ids=["small cnn", "resnet", "windows", "class attention", "pooling"],
)  # fmt: skip
def test_other_attention_is_refused_in_one_sentence(build, side, said):
    with pytest.raises(ValueError, match=said):
        attended(build().eval(), uniform_images(1, side))


def test_a_head_that_pools_by_attention_is_known_to_methods_that_follow_it():
    network = by_timm("vit_base_patch16_siglip_224", embed_dim=12, num_heads=2).eval()
    found = attended(network, uniform_images(1, 32), pooled=True)
    assert (found.pools, found.depth, found.read, found.grid.total) == (True, 2, (0,), 4)


# The modules of the blocks


@pytest.mark.parametrize(
    ("build", "name", "reader"),
    [
        (by_timm, "blocks.{}", "blocks.{}.attn"),
        (by_torchvision, "encoder.layers.encoder_layer_{}", "encoder.layers.encoder_layer_{}.self_attention"),
        (by_transformers, "vit.layers.{}", "vit.layers.{}.attention"),
        (NETWORKS["torch's encoder"], "encoder.layers.{}", "encoder.layers.{}.self_attn"),
    ],
)
def test_blocks_are_found_by_what_they_compute(build, name, reader):
    expected = [Block(name.format(number), reader.format(number)) for number in (0, 1)]
    assert blocks_of(build(), uniform_images(1, 32)) == expected


def test_the_only_block_is_not_what_lies_around_it():
    network = seeded(lambda: torchvision.models.VisionTransformer(32, 16, 1, 2, 12, 12)).double().eval()
    (block,) = blocks_of(network, uniform_images(1, 32))
    assert block.name == "encoder.layers.encoder_layer_0"


@pytest.mark.parametrize("name", ["generic_attention", "attention_grad_cam", "attn_lrp", "cp_lrp", "gim"])
def test_gradient_checkpointing_that_was_left_on_changes_no_map(name):
    method = resolve(expand("method", name))
    images, classes = uniform_images(2, 32), torch.tensor([0, 1])
    network = by_timm()
    plain = method(network, images, classes)
    network.set_grad_checkpointing(True)
    assert torch.equal(method(network, images, classes), plain)
    assert network.grad_checkpointing
