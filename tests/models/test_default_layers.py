"""The default layer of networks that are seldom tried: Grad-CAM's formula, or a refusal that says why."""

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from efface.methods.cam import grad_cam
from efface.models.adapt import Adaptation, adapted
from efface.models.layers import feature_layer
from efface.models.scores import logits_of
from efface.models.tokens import TokenGrid
from small.elsewhere import timm, transformers
from small.tiers import first_short

_BLOCKS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_FOUR = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
_WINDOWS = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
_LEVIT = {"num_attention_heads": [2, 2, 2], "key_dim": [8, 8, 8]}
HUGGING_FACE = {
    "Cvt": {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]},
    "Beit": {**_BLOCKS, "patch_size": 16, "image_size": 64},
    "Bit": {**_FOUR, "embedding_size": 16, "num_groups": 8},
    "CLIP": {"vision_config": {**_BLOCKS, "patch_size": 16, "image_size": 64}, "text_config": _BLOCKS},
    "ConvNextV2": {**_FOUR, "image_size": 64},
    "Data2VecVision": {**_BLOCKS, "patch_size": 16, "image_size": 64},
    "DeiT": {**_BLOCKS, "patch_size": 16, "image_size": 64},
    "Dinov2WithRegisters": {**_BLOCKS, "patch_size": 14, "image_size": 56, "num_register_tokens": 3},
    "DonutSwin": _WINDOWS,
    "FocalNet": {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 128]},
    "HGNetV2": {},
    "Hiera": {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 2], "num_heads": [1, 2, 4, 8]},
    "IJepa": {**_BLOCKS, "patch_size": 16, "image_size": 64},
    "Levit": {"image_size": 128, "hidden_sizes": [16, 24, 32], "depths": [1, 1, 1], **_LEVIT},
    "MobileNetV1": {"image_size": 64, "depth_multiplier": 0.25},
    "MobileNetV2": {"image_size": 64, "depth_multiplier": 0.35},
    "MobileViT": {"image_size": 64, "hidden_sizes": [24, 32, 40]},
    "MobileViTV2": {"image_size": 64, "width_multiplier": 0.25},
    "PoolFormer": _FOUR,
    "PPLCNet": {},
    "Pvt": {"image_size": 64, "hidden_sizes": [8, 16, 40, 32], "depths": [1, 1, 1, 1]},
    "PvtV2": {"image_size": 64, "hidden_sizes": [8, 16, 40, 32], "depths": [1, 1, 1, 1]},
    "RegNet": {**_FOUR, "embedding_size": 16, "groups_width": 8},
    "ResNet": {**_FOUR, "embedding_size": 16},
    "Segformer": {**_FOUR, "image_size": 64, "num_attention_heads": [1, 2, 2, 2]},
    "Siglip": {"vision_config": {**_BLOCKS, "patch_size": 16, "image_size": 64}},
    "SwiftFormer": {"image_size": 64, "embed_dims": [16, 32, 48, 64], "depths": [1, 1, 1, 1]},
    "Swinv2": _WINDOWS,
    "TextNet": {},
    "ViTMSN": {**_BLOCKS, "patch_size": 16, "image_size": 64},
}
_WHOLE = """
coat_lite_tiny efficientformer_l1 efficientformerv2_s0 gcvit_xxtiny levit_128s levit_conv_128s mvitv2_tiny
pit_ti_distilled_224 tiny_vit_5m_224 hiera_tiny_224 visformer_tiny crossvit_tiny_240 lambda_resnet26t halonet26t
"""
_OF_ANY_SIDE = """
davit_tiny edgenext_xx_small fastvit_t8 hgnet_tiny mambaout_femto nextvit_small mobilevitv2_050 caformer_s18
focalnet_tiny_srf
"""
_RESIZED = """
maxvit_pico_rw_256 coatnet_pico_rw_224 nest_tiny twins_svt_small twins_pcpvt_small volo_d1_224 vitamin_small_224
gmlp_ti16_224 resmlp_12_224 convit_tiny
"""
_SHORTENED = """
xcit_nano_12_p16_224 cait_xxs24_224 beitv2_base_patch16_224 flexivit_small vit_small_patch16_dinov3
vit_relpos_small_patch16_224 deit3_small_patch16_224
"""
TIMM = {
    **{name: {} for name in _WHOLE.split()},
    **{name: {"side": 64} for name in _OF_ANY_SIDE.split()},
    **{name: {"img_size": 64} for name in _RESIZED.split()},
    **{name: {"img_size": 64, "depth": 2} for name in _SHORTENED.split()},
    "eva02_tiny_patch14_224": {"img_size": 56, "depth": 2},
    "naflexvit_base_patch16_gap": {"depth": 2, "side": 64},
    "tnt_s_patch16_224": {"depth": 2},
}
_HEAVY = re.compile("large|_[bhlx]$|_[bhl]_|gf$|efficientnet_b[4-7]|vit_[bhl]|densenet1[67]|densenet201|152|101")
TORCHVISION = [name for name in torchvision.models.list_models(torchvision.models) if not _HEAVY.search(name)]


def hugging_face(kind):
    settings = getattr(transformers, f"{kind}Config")(num_labels=5, **HUGGING_FACE[kind])
    side = getattr(settings, "image_size", 64)
    side = HUGGING_FACE[kind].get("image_size", 64 if not isinstance(side, int) or side > 128 else side)
    side = side[0] if isinstance(side, list) else side
    return getattr(transformers, f"{kind}ForImageClassification")(settings), side


def of_timm(name):
    settings = {key: value for key, value in TIMM[name].items() if key != "side"}
    network = timm.create_model(name, num_classes=5, **settings)
    return network, TIMM[name].get("side", settings.get("img_size", network.pretrained_cfg["input_size"][-1]))


def of_torchvision(name):
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    extra |= {"aux_logits": False} if name == "inception_v3" else {}  # they need images of 299 x 299
    side = 224 if "maxvit" in name or "swin" in name else 128
    return torchvision.models.get_model(name, weights=None, num_classes=5, **extra), side


def drawn(network, side):
    """The network in eval mode with weights of the size that keeps activations at their size, and its statistics."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=(parameter[0].numel() if len(parameter) > 1 else 100) ** -0.5)
        elif parameter.abs().max() < 0.01:
            nn.init.normal_(parameter, std=0.3)
    network, _ = adapted(network, Adaptation(), (3, side, side))
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    if norms:
        with torch.no_grad():
            network.train()(torch.rand(3, 3, side, side))
    return network.eval()


def directly(network, layer, images, targets):
    """Grad-CAM's formula by a hook and autograd, at the layer and layout that efface found."""
    kept = []

    def keep(_module, _inputs, output):
        kept.append(output)
        return output.clone()  # a later module may work in place

    handle = network.get_submodule(layer.name).register_forward_hook(keep)
    logits = logits_of(network, images.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), kept[-1])

    def in_places(values):
        if layer.axes == "n c h w":
            return values.movedim(1, 3)
        if layer.axes == "n h w c":
            return values
        return values[:, layer.grid.prefix :].unflatten(1, (layer.grid.rows, layer.grid.columns))

    small = (in_places(kept[-1].detach()) * in_places(gradient).mean((1, 2), keepdim=True)).sum(3)
    return F.interpolate(small[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def is_right_or_refused(network, side):
    """Return the refusal, or "" after comparing Grad-CAM at the default layer with its formula."""
    network = drawn(network, side)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    targets = logits_of(network, images).argmax(1)  # SqueezeNet has a ReLU behind its logits: others may have no map
    try:
        layer = feature_layer(network, images, None)
    except ValueError as refusal:
        return str(refusal)
    found, expected = grad_cam(network, images, targets, relu=False), directly(network, layer, images, targets)
    assert expected.flatten(1).std(1).min() > 0
    together = torch.stack([found.flatten(), expected.flatten()]).double() / expected.abs().max()
    assert torch.corrcoef(together)[0, 1] > 0.999
    return ""


REFUSED = {
    "Cvt": "1 prefix token and 4 x 4 patches, but they do not follow the image; state them",  # fresh weights mix all
    "DonutSwin": "is a branch, and no layer returns the sum",
    "Hiera": "is a branch, and no layer returns the sum",
    "Levit": "they do not follow the image; state them",
    "levit_128s": "they do not follow the image; state them",
    "coat_lite_tiny": "patch tokens get no gradient",
    "crossvit_tiny_240": "shows one branch alone",
}


@pytest.mark.parametrize("kind", first_short(1, HUGGING_FACE))
def test_hugging_faces_networks(kind):
    refusal, expected = is_right_or_refused(*hugging_face(kind)), REFUSED.get(kind, "")
    assert expected in refusal
    assert bool(expected) == bool(refusal)


@pytest.mark.long
@pytest.mark.parametrize("name", TIMM)
def test_timms_networks(name):
    refusal, expected = is_right_or_refused(*of_timm(name)), REFUSED.get(name, "")
    assert expected in refusal
    assert bool(expected) == bool(refusal)


@pytest.mark.long
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks(name):
    assert is_right_or_refused(*of_torchvision(name)) == ""


def test_the_last_block_may_hold_a_convolution_in_its_attention():
    """CvT projects queries by convolutions, after the normalisation whose patch tokens the class token reads."""
    network, side = hugging_face("Cvt")
    stated, _ = adapted(network, Adaptation(tokens=TokenGrid(1, 4, 4)), (3, side, side))
    found = feature_layer(stated.eval(), torch.rand(2, 3, side, side), None)
    assert found.name == "cvt.encoder.stages.2.layers.2.layernorm_before"
