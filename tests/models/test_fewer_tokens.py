"""A transformer with a part of its tokens: against a computation by hand, and one set of weights in three libraries."""

import pytest
import torch
import torchvision
from torch import nn

from efface.models.adapt import Adaptation, adapted
from efface.models.fewer_tokens import check_fewer_tokens, fewer_tokens
from small.batches import uniform_images
from small.elsewhere import timm, transformers
from small.networks import Tiny, hooks, state_of, swin

SIZE, PATCH, WIDTH, HEADS, DEPTH, CLASSES = 12, 4, 8, 2, 2, 3
PATCHES = (SIZE // PATCH) ** 2
SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIZE,
    "patch_size": PATCH,
    "num_labels": CLASSES,
}
IMAGES = uniform_images(4, SIZE)
DROPPED = torch.tensor([[0, 4], [7, 2], [8, 1], [3, 5]])


def kept_without(dropped, patches=PATCHES):
    return torch.ones(len(dropped), patches, dtype=torch.bool).scatter_(1, dropped, False)


def drawn(network):
    """The network in float64 with weights that are no zeros or ones, so that each of them counts."""
    generator = torch.Generator().manual_seed(3)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 3
    return network.double().eval()


def of_timm(**settings):
    sizes = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    kind = timm.models.vision_transformer.VisionTransformer
    return drawn(kind(**sizes | {"mlp_ratio": 2, "num_classes": CLASSES} | settings))


def of_transformers(kind, name="", **settings):
    config = getattr(transformers, f"{kind}Config")(**SMALL | settings)
    network = getattr(transformers, name or f"{kind}ForImageClassification")(config)
    network, _ = adapted(network, Adaptation(), (3, SIZE, SIZE))
    return drawn(network)


def of_torchvision():
    return drawn(torchvision.models.VisionTransformer(SIZE, PATCH, DEPTH, HEADS, WIDTH, 2 * WIDTH, num_classes=CLASSES))


def in_torchvision(state):
    names = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
    parts = {"patch_embed.proj.": "conv_proj.", "norm.": "encoder.ln.", "head.": "heads.head."}
    for number in range(DEPTH):
        theirs, ours = f"encoder.layers.encoder_layer_{number}.", f"blocks.{number}."
        inner = {"norm1.": "ln_1.", "norm2.": "ln_2.", "attn.proj.": "self_attention.out_proj."}
        inner |= {"attn.qkv.": "self_attention.in_proj_", "mlp.fc1.": "mlp.0.", "mlp.fc2.": "mlp.3."}
        parts |= {ours + name: theirs + other for name, other in inner.items()}
    network = of_torchvision()
    network.load_state_dict({renamed(name, names, parts): value for name, value in state.items()})
    return network


def in_transformers(state):
    before = "vit.embeddings."
    names = {"cls_token": f"{before}cls_token", "pos_embed": f"{before}position_embeddings"}
    parts = {"patch_embed.proj.": f"{before}patch_embeddings.projection.", "norm.": "vit.layernorm."}
    parts["head."] = "classifier."
    whole = {}
    for name, value in state.items():
        whole[name] = value
        if ".qkv." in name:
            del whole[name]
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                whole[name.replace("qkv", f"{part}_proj")] = rows
    for number in range(DEPTH):
        inner = {"norm1.": "layernorm_before.", "norm2.": "layernorm_after.", "attn.proj.": "attention.o_proj."}
        inner |= {"mlp.": "mlp."} | {f"attn.{part}_proj.": f"attention.{part}_proj." for part in "qkv"}
        parts |= {f"blocks.{number}.{name}": f"vit.layers.{number}.{other}" for name, other in inner.items()}
    network = of_transformers("ViT", intermediate_size=2 * WIDTH, layer_norm_eps=1e-6)
    network.load_state_dict({renamed(name, names, parts): value for name, value in whole.items()})
    return network


def renamed(name, names, parts):
    found = [other + name.removeprefix(ours) for ours, other in parts.items() if name.startswith(ours)]
    return names.get(name) or found[0]


def by_hand(state, image, places):
    """Logits of one image from the weights alone, with the patch tokens at these places, in their order."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def normed(x, name):
        centred = x - x.mean(-1, keepdim=True)
        x = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    weights = state["patch_embed.proj.weight"].flatten(1)
    cut = image.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    patches = cut @ weights.T + state["patch_embed.proj.bias"]
    tokens = torch.cat([state["cls_token"][0], patches]) + state["pos_embed"][0]
    tokens = tokens.index_select(0, torch.cat([torch.zeros(1).long(), places + 1]))
    for number in range(DEPTH):
        block = f"blocks.{number}"
        q, k, v = (
            part.unflatten(1, (HEADS, -1)).transpose(0, 1)
            for part in linear(normed(tokens, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, 1)
        )
        mixed = (q @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        tokens = tokens + linear(mixed.transpose(0, 1).flatten(1), f"{block}.attn.proj")
        hidden = linear(normed(tokens, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        tokens = tokens + linear(hidden, f"{block}.mlp.fc2")
    return linear(normed(tokens[0], "norm"), "head")


@torch.no_grad()
def answers(network, images, kept):
    with fewer_tokens(network, images) as only:
        return only(images, kept)


NETWORKS = {
    "timm": of_timm,
    "timm without prefix": lambda: of_timm(class_token=False, global_pool="avg"),
    "timm registers": lambda: of_timm(reg_tokens=2, no_embed_class=True),
    "timm mean": lambda: of_timm(global_pool="avg"),
    "timm distilled": lambda: drawn(
        timm.models.deit.VisionTransformerDistilled(
            img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=CLASSES
        )
    ),
    "torchvision": of_torchvision,
    "ViT": lambda: of_transformers("ViT", intermediate_size=16),
    "DeiT": lambda: of_transformers("DeiT", "DeiTForImageClassificationWithTeacher", intermediate_size=16),
    "DINOv2": lambda: of_transformers("Dinov2"),
    "DINOv2 registers": lambda: of_transformers("Dinov2WithRegisters", num_register_tokens=3),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def test_three_libraries_with_the_same_weights_give_what_a_computation_by_hand_gives():
    state = of_timm().state_dict()
    kept = kept_without(DROPPED)
    expected = torch.stack(
        [by_hand(state, image, row.nonzero()[:, 0]) for image, row in zip(IMAGES, kept, strict=True)]
    )
    for network in (of_timm(), in_torchvision(state), in_transformers(state)):
        torch.testing.assert_close(answers(network, IMAGES, kept), expected, rtol=1e-9, atol=1e-9)
    whole = torch.stack([by_hand(state, image, torch.arange(PATCHES)) for image in IMAGES])
    assert (whole - expected).abs().min() > 1e-4  # dropping moves each logit


def test_the_order_of_tokens_does_not_matter():
    state, places = of_timm().state_dict(), torch.tensor([8, 0, 5, 3])
    kept = torch.zeros(1, PATCHES, dtype=torch.bool)
    kept[0, places] = True
    found = answers(of_timm(), IMAGES[:1], kept)[0]
    for order in (places, places.flip(0), places.sort().values):
        torch.testing.assert_close(by_hand(state, IMAGES[0], order), found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_dinov2_drops_patches_and_keeps_its_registers(kind):
    registers = {"num_register_tokens": 3} if kind.endswith("Registers") else {}
    network = of_transformers(kind, **registers)
    prefix = 1 + registers.get("num_register_tokens", 0)
    part = next(child for child in network.children() if hasattr(child, "embeddings"))
    kept = kept_without(DROPPED)
    found = answers(network, IMAGES, kept)
    with torch.no_grad():
        for image, row, logits in zip(IMAGES, kept, found, strict=True):
            places = torch.cat([torch.arange(prefix), row.nonzero()[:, 0] + prefix])
            tokens = part.embeddings(image[None]).index_select(1, places)
            for layer in part.encoder.layer:
                tokens = layer(tokens)
            tokens = part.layernorm(tokens)
            head = torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], 1)
            torch.testing.assert_close(logits, network.classifier(head)[0], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_all_tokens_give_the_logits_of_the_network_exactly(network):
    assert torch.equal(answers(network, IMAGES, kept_without(DROPPED[:, :0])), network(IMAGES))


def test_a_batch_gives_what_single_images_give_whatever_each_keeps(network):
    kept = kept_without(DROPPED)
    kept[1, 3:] = False
    kept[2] = True
    single = [answers(network, IMAGES[row : row + 1], kept[row : row + 1]) for row in range(4)]
    torch.testing.assert_close(answers(network, IMAGES, kept), torch.cat(single), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_pixels_of_dropped_patches_do_not_count_and_others_do(network):
    check_fewer_tokens(network, IMAGES)
    other, kept = IMAGES.clone(), kept_without(torch.zeros(4, 1).long())
    other[..., :PATCH, :PATCH] = 0
    torch.testing.assert_close(answers(network, other, kept), answers(network, IMAGES, kept), rtol=0, atol=1e-12)
    assert not torch.allclose(network(other), network(IMAGES))


def test_without_patch_tokens_only_the_prefix_tokens_are_left():
    nothing = torch.zeros(4, PATCHES, dtype=torch.bool)
    state = of_timm().state_dict()
    expected = by_hand(state, IMAGES[0], torch.arange(0))
    for network in (of_timm(), in_torchvision(state), in_transformers(state)):
        found = answers(network, IMAGES, nothing)
        torch.testing.assert_close(found, expected.expand(4, -1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("timm without prefix", "its head has nothing to read"),
        ("timm mean", "its head reads the mean of the patch tokens"),
        ("DINOv2", "its head reads the mean of the patch tokens"),
    ],
)
def test_a_head_that_reads_patches_is_refused_without_any(name, why):
    with pytest.raises(ValueError, match=f"{why}.*; give fractions below 1"):
        answers(NETWORKS[name](), IMAGES, torch.zeros(4, PATCHES, dtype=torch.bool))


@pytest.mark.parametrize(("pool", "why"), [("max", "without any of them it fails"), ("map", "has nothing to read")])
def test_a_pool_over_no_patches_is_refused(pool, why):
    network = of_timm(reg_tokens=2, class_token=False, global_pool=pool)
    with pytest.raises(ValueError, match=why):
        answers(network, IMAGES, torch.zeros(4, PATCHES, dtype=torch.bool))


def test_the_network_is_restored_also_after_an_exception(network):
    before = state_of(network)

    def fails():
        with fewer_tokens(network, IMAGES) as only:
            only(IMAGES, kept_without(DROPPED))
            raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        fails()
    assert (state_of(network), hooks(network)) == (before, 0)
    check_fewer_tokens(network, IMAGES)
    assert (state_of(network), hooks(network)) == (before, 0)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Tiny(3, 4), "Tiny has no attention"),
        (swin, "inside the attention .*relative_position_bias_table"),
        (lambda: timm.create_model("eva02_tiny_patch14_224", img_size=28, depth=1), r"inside the attention \(rope"),
        (
            lambda: timm.create_model("beit_base_patch16_224", img_size=32, depth=1),
            "inside the attention .*relative_po",
        ),
        (lambda: nn.Sequential(nn.MultiheadAttention(4, 2)), "not known where Sequential adds positions"),
        (lambda: nn.ModuleList([of_timm(), of_torchvision()]), "has 2 transformers"),
    ],
)
def test_a_network_whose_embedding_is_not_known_is_refused(make, why):
    network = make().eval()
    with pytest.raises(ValueError, match=why), fewer_tokens(network, torch.rand(1, 3, 28, 28)):
        pass


def test_tokens_that_are_mixed_before_the_positions_are_refused():
    network = of_timm()
    network.patch_embed.norm = nn.Sequential(Mixed(), nn.Identity())
    with pytest.raises(ValueError, match="depend on the pixels of patches whose tokens are dropped"):
        check_fewer_tokens(network, IMAGES)


class Mixed(nn.Module):
    """Each token gets a part of its neighbour."""

    def forward(self, tokens):
        return tokens + tokens.roll(1, 1) / 2


def test_another_number_of_patches_is_refused():
    with pytest.raises(ValueError, match=r"expected \(4, 9\)"):
        answers(of_timm(), IMAGES, torch.ones(4, 8, dtype=torch.bool))
