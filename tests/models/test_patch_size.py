"""Size of the patches that a network cuts its images into."""

import pytest
import torch
import torchvision
from torch import nn

from efface.models.adapt import Adaptation, adapted
from efface.models.patch_size import patch_size
from efface.models.tokens import TokenGrid
from small.elsewhere import timm, transformers
from small.networks import Tiny, hooks, swin

CONFIG = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 12, "intermediate_size": 12}


class Unfolded(nn.Module):
    """A mixer of its own: patches cut without a convolution."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(48, 5), nn.Linear(5, 3)

    def forward(self, images):
        return self.head(self.linear(nn.functional.unfold(images, 4, stride=4).mT).relu().mean(1))


class Resizing(nn.Sequential):
    """Images are resized before they are cut."""

    def forward(self, images):
        return super().forward(nn.functional.interpolate(images, size=(16, 16)))


def tiny(name, **settings):
    return timm.create_model(name, num_classes=3, **settings)


def convnext():
    return torchvision.models.convnext.ConvNeXt([torchvision.models.convnext.CNBlockConfig(8, None, 2)])


@pytest.mark.parametrize(
    ("make", "size", "expected"),
    [
        (lambda: torchvision.models.VisionTransformer(48, 16, 1, 2, 12, 12), (48, 48), (16, 16)),
        (swin, (32, 64), (4, 4)),
        (convnext, (32, 32), (4, 4)),
        (lambda: tiny("vit_tiny_patch16_224", img_size=(32, 48), depth=1), (32, 48), (16, 16)),
        (
            lambda: tiny("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True, depth=1),
            (33, 48),
            (16, 16),
        ),
        (lambda: tiny("beit_base_patch16_224", img_size=32, depth=1), (32, 32), (16, 16)),
        (lambda: tiny("eva02_tiny_patch14_224", img_size=28, depth=1), (28, 28), (14, 14)),
        (lambda: tiny("mixer_s32_224", img_size=64), (64, 64), (32, 32)),
        (
            lambda: transformers.Dinov2ForImageClassification(
                transformers.Dinov2Config(**CONFIG, image_size=28, patch_size=14)
            ),
            (42, 28),
            (14, 14),
        ),
        (Unfolded, (32, 48), (4, 4)),
    ],
)
def test_the_first_layer_or_the_tokens_tell_the_patches(make, size, expected):
    network, _ = adapted(make().eval(), Adaptation(), (3, *size))
    assert patch_size(network, torch.rand(2, 3, *size)) == expected
    assert hooks(network) == 0


@pytest.mark.parametrize(
    ("make", "size", "why"),
    [
        (
            lambda: Tiny(3, 4),
            (16, 16),
            "Tiny begins with a convolution of 3 x 3 at stride 1 x 1, which cuts no patches",
        ),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.Flatten()), (32, 32), "of 7 x 7 at stride 2 x 2"),
        (convnext, (34, 32), "images of 34 x 32 are no whole patches of 4 x 4"),
        (lambda: Resizing(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (32, 32), "at their places"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), (4, 4), "has no patches that are known"),
    ],
)
def test_a_network_without_patches_is_refused_and_a_size_is_named(make, size, why):
    with pytest.raises(ValueError, match=f"{why}.*call: patch, kwargs: {{size: 16}}"):
        patch_size(make().eval(), torch.rand(1, 3, *size))


def test_what_the_study_states_counts_more_than_the_first_convolution():
    network = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 2, 2), nn.Flatten(), nn.Linear(64, 3))
    images = torch.rand(1, 3, 16, 16)
    assert patch_size(network, images) == (2, 2)
    stated, _ = adapted(network, Adaptation(tokens=TokenGrid(0, 4, 2)), (3, 16, 16))
    assert patch_size(stated, images) == (4, 8)
    stated, _ = adapted(network, Adaptation(tokens=TokenGrid(0, 3, 4)), (3, 16, 16))
    with pytest.raises(ValueError, match="3 x 4 patches, into which images of 16 x 16 cannot be cut evenly"):
        patch_size(stated, images)
