"""Methods that look at a layer, on networks that compute with tokens or with channels last."""

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from efface.base.types import Split
from efface.methods import cam, captum, contrast, fullgrad, zennit
from efface.methods.gradient import gradient
from efface.methods.path import ig_uniform, integrated_gradients
from efface.methods.pattern import PatternAttribution
from efface.models.laid_out import FeatureLayer
from efface.models.layers import feature_layer
from efface.models.layout import layouts
from efface.models.places import placed
from efface.models.resnet import resnet20
from efface.models.tokens import TokenGrid
from small.elsewhere import timm
from small.networks import state_of
from small.of_tokens import KNOWN
from small.tiers import first_short

SEVEN = list(KNOWN)[:7]
every_network = pytest.mark.parametrize("name", first_short(7, KNOWN))
seven_networks = pytest.mark.parametrize("name", SEVEN)
TARGETS = torch.tensor([1, 3, 0])


def read_directly(known, network, images, targets, *, layer=None):
    """Features and gradients at a layer as n y x c, by a hook and autograd, and nothing of efface."""
    kept = []
    handle = network.get_submodule(layer or known.layer).register_forward_hook(lambda _m, _i, out: kept.append(out))
    logits = network(images.clone().requires_grad_())
    handle.remove()
    (gradients,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), kept[-1])

    def in_places(values):
        if known.axes == "n c h w":
            return values.movedim(1, 3)
        if known.axes == "n h w c":
            return values
        return torch.stack(
            [values[:, known.prefix + y * known.columns :][:, : known.columns] for y in range(known.rows)], 1
        )

    features, gradients = in_places(kept[-1].detach()), in_places(gradients)
    assert features.shape[:3] == gradients.shape[:3] == (len(images), known.rows, known.columns)
    return features, gradients


def large(small, images):
    return F.interpolate(small[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


@every_network
def test_the_default_layer_is_that_of_the_last_features(name):
    known = KNOWN[name]
    network = known.made()
    found = feature_layer(network, known.images(), None)
    grid = TokenGrid(known.prefix, known.rows, known.columns) if known.axes == "n t c" else None
    assert found == FeatureLayer(network.get_submodule(known.layer), known.layer, known.axes, grid)


@every_network
def test_grad_cam_is_its_formula(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    features, gradients = read_directly(known, network, images, TARGETS)
    weighted = (features * gradients.mean((1, 2), keepdim=True)).sum(3)
    found = cam.grad_cam(network, images, TARGETS, relu=False)
    assert found.flatten(1).std(1).min() > 0
    torch.testing.assert_close(found, large(weighted, images), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        cam.grad_cam(network, images, TARGETS), large(weighted.relu(), images), rtol=1e-8, atol=1e-12
    )


@seven_networks
def test_the_other_cams_are_their_formulas(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    features, gradients = read_directly(known, network, images, TARGETS)
    hires = large((features * gradients).sum(3), images)
    torch.testing.assert_close(cam.hires_cam(network, images, TARGETS, relu=False), hires, rtol=1e-8, atol=1e-12)
    by_layer = large((features * gradients.relu()).sum(3), images)
    torch.testing.assert_close(cam.layer_cam(network, images, TARGETS, relu=False), by_layer, rtol=1e-8, atol=1e-12)


@seven_networks
def test_score_cam_masks_with_the_channels_of_tokens(name):
    known = KNOWN[name]
    network, images = known.made(), known.images(2)
    features, _ = read_directly(known, network, images, TARGETS[:2])
    total = torch.zeros(2, known.rows, known.columns, dtype=images.dtype)
    for channel in features.unbind(3):
        mask = large(channel, images)
        low, high = mask.amin((1, 2), keepdim=True), mask.amax((1, 2), keepdim=True)
        with torch.no_grad():
            logits = network(images * ((mask - low) / (high - low))[:, None])
        total += logits.gather(1, TARGETS[:2, None])[:, :, None] * channel
    found = cam.score_cam(network, images, TARGETS[:2], weights="score", relu=False)
    torch.testing.assert_close(found, large(total, images), rtol=1e-7, atol=1e-9)


@seven_networks
def test_captums_class_for_layers_gives_the_same_grad_cam(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    found = captum.attribute(network, images, TARGETS, algorithm="LayerGradCam", attribute={"relu_attributions": True})
    torch.testing.assert_close(found, cam.grad_cam(network, images, TARGETS), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["torchvision ViT", "timm Swin"])
@pytest.mark.parametrize("algorithm", ["LayerActivation", "LayerGradientXActivation", "LayerIntegratedGradients"])
def test_captums_classes_for_layers_are_called_on_tokens(name, algorithm):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    features, gradients = read_directly(known, network, images, TARGETS)
    found = captum.attribute(network, images, TARGETS, algorithm=algorithm)
    if algorithm == "LayerIntegratedGradients":  # no direct computation, but captum's own sum of the values of tokens
        direct = attr.LayerIntegratedGradients(network, network.get_submodule(known.layer))
        values = direct.attribute(images, target=TARGETS, baselines=torch.zeros_like(images)).detach()
        summed = values.sum(-1)[:, known.prefix :] if known.axes == "n t c" else values.sum(-1)
        expected = summed.unflatten(1, (known.rows, known.columns)) if summed.ndim == 2 else summed
        if known.prefix:  # prefix tokens keep the image's values here, and move along the path there
            assert found.shape == images[:, 0].shape
            assert found.flatten(1).std(1).min() > 0
            return
    else:
        expected = (features if algorithm == "LayerActivation" else features * gradients).sum(3)
    torch.testing.assert_close(found, large(expected, images), rtol=1e-7, atol=1e-9)


@seven_networks
def test_an_images_map_does_not_depend_on_the_batch(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    for method in (cam.grad_cam, lambda *given: contrast.contrast(*given, base=cam.grad_cam)):
        together = method(network, images, TARGETS)
        singles = [method(network, images[i : i + 1], TARGETS[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(together, torch.cat(singles), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        cam.grad_cam(network, images, TARGETS, max_batch=1), cam.grad_cam(network, images, TARGETS)
    )


@seven_networks
def test_contrast_weighs_the_logits(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    found = contrast.contrast(network, images, TARGETS, base=cam.grad_cam, against="mean")
    maps = [cam.grad_cam(network, images, torch.full_like(TARGETS, k), relu=False) for k in range(4)]
    own = torch.stack([maps[int(k)][i] for i, k in enumerate(TARGETS)])
    torch.testing.assert_close(found, own - (sum(maps) - own) / 3, rtol=1e-7, atol=1e-10)


@seven_networks
def test_recalibrated_paths_need_no_layer(name):
    known = KNOWN[name]
    network, images = known.made(), known.images(2)
    settings = {"steps": 4, "rule": "midpoint"}
    plain = integrated_gradients(network, images, TARGETS[:2], baseline=0.0, **settings)
    of_one = {"references": torch.zeros_like(images)[:, None], "recalibrate": "references"}
    found = ig_uniform(network, images, TARGETS[:2], **of_one, **settings)
    assert plain.min() < 0 < plain.max()
    torch.testing.assert_close(found, plain.relu(), rtol=1e-8, atol=1e-12)  # a path is kept or left out


@seven_networks
def test_network_is_as_before_and_after_an_exception(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    with torch.no_grad():
        logits = network(images)
    before = state_of(network)
    for method in (cam.grad_cam, lambda *given: captum.attribute(*given, algorithm="LayerGradCam")):
        method(network, images, TARGETS)
        assert state_of(network) == before
        with pytest.raises(RuntimeError, match="index 10 is out of bounds"):
            method(network, images, TARGETS + 9)
        assert state_of(network) == before
    with torch.no_grad():
        assert torch.equal(network(images), logits)


def test_network_is_restored_if_its_own_layer_raises():
    known = KNOWN["timm ViT"]
    network, images = known.made(), known.images()
    cam.grad_cam(network, images, TARGETS)  # the layer is known from now on

    def fail(_module, _inputs):
        raise RuntimeError("out of memory")

    handle = network.blocks[1].mlp.register_forward_pre_hook(fail)
    before = state_of(network)
    with pytest.raises(RuntimeError, match="out of memory"):
        cam.grad_cam(network, images, TARGETS)
    assert state_of(network) == before
    handle.remove()


REFUSED = {
    "torchvision ViT": {
        "conv_proj": "first layer",
        "encoder.dropout": "first layer",
        "encoder.layers.encoder_layer_1.ln_2": "patch tokens get no gradient",
        "encoder": "patch tokens get no gradient",
        "encoder.layers.encoder_layer_0.self_attention": "returns no tensor",
    },
    "timm ViT": {
        "patch_embed.proj": "first layer",
        "patch_embed": "first layer",
        "blocks.0.norm1": "one patch alone",
        "blocks.1.attn": "patch tokens get no gradient",
        "blocks.1.attn.k_norm": "heads tokens",
        "blocks.0.attn.q_norm": "heads tokens",
        "norm": "patch tokens get no gradient",
        "head": "returns n x 4",
    },
    "timm Swin": {
        "patch_embed.proj": "first layer",
        "patch_embed": "one patch alone",
        "patch_embed.norm": "one patch alone",
        "layers.0.blocks.0.norm1": "one patch alone",
        "layers.0.blocks.0.attn.qkv": "first axis",
    },
    "torchvision Swin": {
        "features.0.0": "first layer",
        "features.0": "one patch alone",
        "features.0.2": "one patch alone",
        "features.1.0.attn.qkv": "no tensor",
    },
    "Hugging Face ViT": {
        "vit.embeddings.patch_embeddings.projection": "first layer",
        "vit.layers.1.layernorm_after": "patch tokens get no gradient",
    },
    "Hugging Face Swin": {
        "swin.encoder.layers.1.blocks.0.attention.relative_position_bias": "first axis",
        "swin.pooler": "fit no grid",
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_shows_nothing_is_refused_with_the_reason_and_with_layers_that_work(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    before = state_of(network)
    for layer, why in REFUSED[name].items():
        with pytest.raises(ValueError, match=rf"layer '{layer}' of .*{why}.*layers that work: ") as raised:
            cam.grad_cam(network, images, TARGETS, layer=layer)
        able = str(raised.value).rpartition("layers that work: ")[2].split(", ")
        assert known.layer in able
    for layer in able:
        assert cam.hires_cam(network, images, TARGETS, layer=layer, relu=False).flatten(1).std(1).min() > 0
    assert state_of(network) == before


def test_tokens_before_images_are_refused_with_the_reason():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 12, 8, 8)
            self.block = nn.TransformerEncoderLayer(12, 2, 24, batch_first=False)
            self.head = nn.Linear(12, 4)

        def forward(self, images):
            return self.head(self.block(self.patches(images).flatten(2).permute(2, 0, 1)).mean(0))

    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"second axis is that of the images.*batch_first=True"):
        cam.grad_cam(SequenceFirst().eval(), torch.rand(2, 3, 32, 32), TARGETS[:2], layer="block")


def test_a_normalisation_of_the_embedding_shows_one_patch_alone():
    settings = {"img_size": 64, "depth": 2, "embed_dim": 12, "num_heads": 2, "num_classes": 4}
    network = timm.create_model("vit_base_patch16_clip_224", **settings).eval()
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"'norm_pre' of .*one patch alone"):
        cam.grad_cam(network, images, TARGETS[:2], layer="norm_pre")
    settings["depth"] = 1  # nothing but the embedding is read at the patches, so it is all there is
    network = timm.create_model("vit_base_patch16_clip_224", **settings).eval()
    assert feature_layer(network, images, None).name == "blocks.0.norm1"


@pytest.mark.parametrize("name", ["ConvNeXt", "ResNet"])
def test_the_first_layers_of_a_network_of_convolutions_may_be_named(name):
    if name == "ResNet":
        network, images, layers = resnet20(num_classes=4).eval(), torch.rand(3, 3, 32, 32), ("conv1", "bn1")
    else:
        network, images, layers = KNOWN[name].made(), KNOWN[name].images(), ("features.0.0", "features.0")
    for layer in layers:
        assert cam.grad_cam(network, images, TARGETS, layer=layer, relu=False).flatten(1).std(1).min() > 0


def test_a_named_layer_is_laid_out_too():
    known = KNOWN["torchvision Swin"]
    network, images = known.made(), known.images()
    features, gradients = read_directly(known._replace(axes="n h w c"), network, images, TARGETS, layer="norm")
    expected = large((features * gradients.mean((1, 2), keepdim=True)).sum(3).relu(), images)
    torch.testing.assert_close(cam.grad_cam(network, images, TARGETS, layer="norm"), expected)
    torch.testing.assert_close(cam.grad_cam(network, images, TARGETS), expected)  # `permute` changes no value


def test_a_fresh_head_of_zeros_hides_no_layer():
    known = KNOWN["torchvision ViT"]
    network = known.build().eval()
    assert not network.heads.head.weight.any()
    found = feature_layer(network, known.images(dtype=torch.float32), None)
    assert found.name == known.layer


@pytest.mark.parametrize("name", [name for name in SEVEN if name != "ConvNeXt"])
def test_methods_without_rules_for_attention_refuse_with_one_reason(name):
    known = KNOWN[name]
    network, images = known.made(torch.float32), known.images(2, torch.float32)
    targets = TARGETS[:2]
    with pytest.raises(ValueError, match=r"(in no part of FullGrad|no known place).*another method, such as cp_lrp"):
        fullgrad.full_grad(network, images, targets)
    with pytest.raises(
        ValueError, match=r"zennit.attribute: .* has weights, but EpsilonPlus has no rule for it.* such as lrp"
    ):
        zennit.attribute(network, images, targets)
    with pytest.raises(ValueError, match=r"no ReLU module ran in"):
        cam.guided_grad_cam(network, images, targets)
    with pytest.raises(ValueError, match=r"patterns are not defined for .*choose another method.* such as lrp"):
        PatternAttribution(pool=2).fit(network, Split((images * 255).byte(), targets), seed=0, max_batch=2)
    with pytest.raises(ValueError, match=r"captum's LayerDeepLift cannot change the (gelu|softmax) of"):
        captum.attribute(network, images, targets, algorithm="LayerDeepLift")


def test_tokens_that_attention_makes_alike_lie_as_the_others_of_their_shape():
    known = KNOWN["Hugging Face ViT"]
    network = known.made()
    for each, value in network.named_parameters():
        if "q_proj" in each:
            value.data.zero_()
    grid = TokenGrid(known.prefix, known.rows, known.columns)
    layers = [each for each, layout in layouts(network, known.images()).items() if len(layout.shape) == 3]
    assert any(each.endswith("o_proj") for each in layers)
    for each in layers[1:]:
        if "patch" not in each:
            assert placed(network, known.images(), each) == FeatureLayer(
                network.get_submodule(each), each, "n t c", grid
            )


BIASES = {
    "torchvision ViT": r"'encoder.layers.encoder_layer_0.self_attention.in_proj_bias' outside a layer",
    "timm Swin": r"layer 'layers.0.blocks.0.attn.qkv' .* no known place in the image: its first axis",
    "torchvision Swin": r"'features.1.0.attn.qkv.bias' outside a layer",
    "Hugging Face Swin": r"layer 'swin.*' .* no known place in the image: its first axis",
}


@pytest.mark.parametrize("name", SEVEN)
def test_gradients_at_all_biases_of_a_transformer_are_laid_out_or_refused_with_the_reason(name):
    known = KNOWN[name]
    network, images = known.made(), known.images()
    if name in BIASES:
        with pytest.raises(ValueError, match=BIASES[name]):
            fullgrad.simple_full_grad(network, images, TARGETS)
        return
    maps = fullgrad.simple_full_grad(network, images, TARGETS)
    assert maps.flatten(1).std(1).min() > 0
    layers = [
        each for each, module in network.named_modules() if isinstance(getattr(module, "bias", None), torch.Tensor)
    ]
    expected = (
        images * gradient(network, images, TARGETS),
        *(at_layer(known, network, images, each) for each in layers),
    )
    torch.testing.assert_close(maps, sum(large(stretched(part), images) for part in expected if part is not None))


def at_layer(known, network, images, layer):
    """The gradient at a layer as n c y x; None where it has no places."""
    kept = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out) or out.clone())
    logits = network(images.clone().requires_grad_())
    handle.remove()
    (slope,) = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), kept[-1])
    if slope.ndim == 2:
        return None
    if slope.ndim == 3:
        return slope[:, known.prefix :].unflatten(1, (known.rows, known.columns)).movedim(3, 1)
    return slope if isinstance(network.get_submodule(layer), nn.Conv2d | LayerNorm2d) else slope.movedim(3, 1)


def stretched(part):
    values = part.abs() - part.abs().amin((1, 2, 3), keepdim=True)
    return (values / values.amax((1, 2, 3), keepdim=True).clamp(min=1e-300)).sum(1)


class Flat(nn.Module):
    """A convolutional network that returns n channels places from one of its modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.flat, self.head = nn.Flatten(2), nn.Linear(16, 4)

    def forward(self, images):
        return self.head(self.flat(self.second(self.conv(images).relu()).relu()).mean(2))


def test_three_axes_alone_are_no_tokens():
    network, images = Flat().eval(), torch.rand(2, 3, 16, 16)
    assert feature_layer(network, images, None).name == "second"
    with pytest.raises(ValueError, match=r"'flat' of Flat returns n x 16 x 16.*n channels tokens"):
        cam.grad_cam(network, images, TARGETS[:2], layer="flat")
