"""Small networks that compute with tokens or with channels last, of three packages, and where their last features are.

Their weights are drawn, also those of heads that the packages set to 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from efface.models.adapt import Adaptation, adapted
from small.elsewhere import timm, transformers
from small.networks import seeded


class Known(NamedTuple):
    """A network, and what is known of it by its code.

    size: height and width of its images. layer: name of the layer of its last features. axes: their layout.
    prefix, rows, columns: how its tokens lie; of a feature map, only the places.
    """

    build: Callable[[], nn.Module]
    size: tuple[int, int]
    layer: str
    axes: str
    prefix: int
    rows: int
    columns: int

    def made(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The network in eval mode, as efface adapts it, with drawn weights."""
        return seeded(lambda: _drawn(adapted(self.build(), Adaptation(), (3, *self.size))[0])).to(dtype).eval()

    def images(self, count: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.rand(count, 3, *self.size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def _drawn(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


def _timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=4, **settings)


def _transformers(kind: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        config = getattr(transformers, f"{kind}Config")(num_labels=4, **settings)
        return getattr(transformers, f"{kind}ForImageClassification")(config)

    return build


_THIN = {"depth": 2, "embed_dim": 12, "num_heads": 2}
_BLOCKS = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
_SWIN = {"img_size": 64, "window_size": 4, "depths": (1, 1), "num_heads": (2, 2), "embed_dim": 12}
_HF_SWIN = {"image_size": 64, "patch_size": 4, "window_size": 4, "depths": [1, 1], "num_heads": [2, 2], "embed_dim": 12}
_VIT, _DEIT = "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"

KNOWN = {
    "torchvision ViT": Known(
        lambda: VisionTransformer(48, 16, 2, 2, 12, 12, num_classes=4),
        *((48, 48), "encoder.layers.encoder_layer_1.ln_1", "n t c", 1, 3, 3),
    ),
    "timm ViT": Known(_timm(_VIT, img_size=(48, 64), **_THIN), (48, 64), "blocks.1.norm1", "n t c", 1, 3, 4),
    "timm Swin": Known(_timm("swin_tiny_patch4_window7_224", **_SWIN), (64, 64), "norm", "n h w c", 0, 8, 8),
    "torchvision Swin": Known(
        lambda: SwinTransformer([4, 4], 12, [1, 1], [2, 2], [2, 2], num_classes=4),
        *((48, 64), "permute", "n c h w", 0, 6, 8),
    ),
    "Hugging Face ViT": Known(
        _transformers("ViT", **_BLOCKS, patch_size=16, image_size=48),
        *((48, 48), "vit.layers.1.layernorm_before", "n t c", 1, 3, 3),
    ),
    "Hugging Face Swin": Known(_transformers("Swin", **_HF_SWIN), (64, 64), "swin.layernorm", "n t c", 0, 8, 8),
    "ConvNeXt": Known(
        lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=4),
        *((48, 48), "features", "n c h w", 0, 6, 6),
    ),
    "distilled DeiT": Known(_timm(_DEIT, img_size=48, **_THIN), (48, 48), "blocks.1.norm1", "n t c", 2, 3, 3),
    "mean over patches": Known(
        _timm(_VIT, img_size=48, class_token=False, global_pool="avg", **_THIN), (48, 48), "blocks.1", "n t c", 0, 3, 3
    ),
    "attention pooling": Known(
        _timm("vit_base_patch16_siglip_224", img_size=64, **_THIN), (64, 64), "norm", "n t c", 0, 4, 4
    ),
    "registers": Known(
        _transformers("Dinov2WithRegisters", **_BLOCKS, patch_size=14, image_size=56, num_register_tokens=3),
        *((56, 56), "dinov2_with_registers.layernorm", "n t c", 4, 4, 4),
    ),
    "BEiT": Known(
        _transformers("Beit", **_BLOCKS, patch_size=16, image_size=64), (64, 64), "beit.layers.1", "n t c", 1, 4, 4
    ),
    "class attention": Known(
        _timm("cait_xxs24_224", img_size=64, **_THIN), (64, 64), "blocks_token_only.1.norm1", "n t c", 1, 4, 4
    ),
    "Swin V2": Known(_timm("swinv2_tiny_window8_256", **_SWIN), (64, 64), "norm", "n h w c", 0, 8, 8),
}
"""The first seven have the layouts that were mistaken for feature maps; the others have other heads and prefixes."""
