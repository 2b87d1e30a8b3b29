"""How many tokens stand before the patches, and in which grid the patches lie."""

import pytest
import torch
import torchvision
from torch import nn

from efface.models.adapt import Adaptation, adapted
from efface.models.attended import attended
from efface.models.layers import feature_layer
from efface.models.patch_size import patch_size
from efface.models.tokens import TokenGrid, lies_elsewhere, own_grid, token_grid
from small.elsewhere import timm, transformers
from small.messages import words
from small.networks import Tiny

SMALL = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}


class Own(nn.Module):
    """A transformer that says nothing of its tokens: patches of 8 x 8 after some prefix tokens."""

    def __init__(self, prefix, *, by_columns=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.prefix = nn.Parameter(torch.zeros(1, prefix, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)
        self.by_columns = by_columns

    def forward(self, images):
        grid = self.patches(images)
        tokens = (grid.transpose(2, 3) if self.by_columns else grid).flatten(2).transpose(1, 2)
        return self.head(self.block(torch.cat([self.prefix.expand(len(images), -1, -1), tokens], 1)).mean(1))


@pytest.mark.parametrize(
    ("network", "settings", "size", "expected"),
    [
        ("vit_tiny_patch16_224", {"img_size": 48}, (48, 48), (1, 3, 3)),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, (32, 48), (1, 2, 3)),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True, "dynamic_img_pad": True}, (33, 48), (1, 3, 3)),
        ("vit_tiny_patch16_224", {"img_size": 32, "class_token": False, "global_pool": "avg"}, (32, 32), (0, 2, 2)),
        ("deit_tiny_distilled_patch16_224", {"img_size": 32}, (32, 32), (2, 2, 2)),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 28, "embed_dim": 12, "num_heads": 2}, (28, 28), (5, 2, 2)),
    ],
)
def test_a_network_of_timm_says_how_its_tokens_lie(network, settings, size, expected):
    model = timm.create_model(network, depth=1, num_classes=3, **settings).eval()
    assert (
        token_grid(model, torch.rand(1, 3, *size)) == TokenGrid(*expected) == own_grid(model, torch.rand(1, 3, *size))
    )


@pytest.mark.parametrize(
    ("kind", "settings", "size", "expected"),
    [
        ("ViT", {"patch_size": 16, "image_size": 48}, (48, 48), (1, 3, 3)),
        ("DeiT", {"patch_size": 16, "image_size": 48}, (48, 48), (2, 3, 3)),
        ("Dinov2", {"patch_size": 14, "image_size": 28}, (28, 42), (1, 2, 3)),
        ("Dinov2WithRegisters", {"patch_size": 14, "image_size": 28, "num_register_tokens": 3}, (28, 28), (4, 2, 2)),
    ],
)
def test_a_network_of_transformers_says_how_its_tokens_lie(kind, settings, size, expected):
    config = getattr(transformers, f"{kind}Config")(**SMALL, **settings)
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    assert token_grid(model, torch.rand(1, 3, *size)) == TokenGrid(*expected)


def test_torchvisions_vision_transformer_has_one_class_token():
    model = torchvision.models.VisionTransformer(48, 16, 1, 2, 12, 12).eval()
    assert token_grid(model, torch.rand(1, 3, 48, 48)) == TokenGrid(1, 3, 3)


@pytest.mark.parametrize(("prefix", "size"), [(0, (64, 64)), (1, (64, 64)), (2, (64, 96)), (5, (64, 64))])
def test_the_number_of_tokens_tells_the_grid_where_one_answer_is_possible(prefix, size):
    grid = token_grid(Own(prefix).eval(), torch.rand(1, 3, *size))
    assert grid == TokenGrid(prefix, size[0] // 8, size[1] // 8)
    assert grid.total == prefix + size[0] * size[1] // 64


def test_tokens_that_lie_column_by_column_are_refused():
    with pytest.raises(ValueError, match="do not follow the image; state them"):
        token_grid(Own(1, by_columns=True).eval(), torch.rand(1, 3, 64, 64))


def test_a_number_of_tokens_that_allows_several_grids_is_refused():
    with pytest.raises(ValueError, match="no prefix tokens and 3 x 3 patches or 5 prefix tokens and 2 x 2 patches"):
        token_grid(Own(0).eval(), torch.rand(1, 3, 24, 24))


def test_a_number_of_tokens_that_allows_no_grid_is_refused():
    with pytest.raises(ValueError, match=r"67 tokens .* fit no grid"):
        token_grid(Own(3).eval(), torch.rand(1, 3, 64, 64))


def test_a_convolutional_network_has_no_tokens():
    with pytest.raises(ValueError, match="no layer returns n x tokens"):
        token_grid(Tiny(3, 4).eval(), torch.rand(1, 3, 16, 16))
    assert own_grid(Tiny(3, 4), torch.rand(1, 3, 16, 16)) is None


def test_the_study_states_what_the_network_does_not_say():
    network, _ = adapted(Own(3), Adaptation(tokens=TokenGrid(3, 8, 8)), (3, 64, 64))
    assert token_grid(network.eval(), torch.rand(1, 3, 64, 64)) == TokenGrid(3, 8, 8)
    network, _ = adapted(Own(3), Adaptation(tokens=TokenGrid(1, 8, 8)), (3, 64, 64))
    with pytest.raises(ValueError, match=r"states 1 prefix token and 8 x 8 patches, 65 tokens .* have 67"):
        token_grid(network.eval(), torch.rand(1, 3, 64, 64))


def distilled(**stated):
    settings = {"img_size": 64, "depth": 2, "embed_dim": 12, "num_heads": 2, "num_classes": 4}
    made = timm.create_model("deit_tiny_distilled_patch16_224", **settings)
    return adapted(made, Adaptation(tokens=TokenGrid(**stated)), (3, 64, 64))[0].eval()


def levit():
    small = {"hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}
    return transformers.LevitForImageClassification(transformers.LevitConfig(image_size=128, num_labels=4, **small))


def xcit():
    return timm.create_model("xcit_nano_12_p16_224", img_size=64, depth=2, embed_dim=32, num_classes=4)


@pytest.mark.parametrize(
    ("build", "size", "stated"),
    [
        (levit, 128, TokenGrid(0, 2, 2)),  # stages merge tokens: 8 x 8, 4 x 4, 2 x 2
        (xcit, 64, TokenGrid(1, 4, 4)),  # the class token joins last
    ],
)
def test_the_study_may_state_the_tokens_of_the_last_blocks(build, size, stated):
    network, _ = adapted(build(), Adaptation(tokens=stated), (3, size, size))
    found = feature_layer(network.eval(), torch.rand(2, 3, size, size), None)
    assert found.grid == stated


def test_a_refusal_states_the_grid_that_the_number_of_tokens_allows():
    with pytest.raises(ValueError, match=words("such as tokens: {prefix: 1, grid: [8, 12]}")):
        token_grid(Own(1, by_columns=True).eval(), torch.rand(1, 3, 64, 96))


def test_a_network_of_timm_says_its_prefix_where_it_does_not_say_its_grid():
    network = timm.create_model("naflexvit_base_patch16_gap", depth=1, embed_dim=12, num_heads=2, num_classes=3).eval()
    images = torch.rand(1, 3, 64, 64)
    assert own_grid(network, images) is None
    assert token_grid(network, images) == TokenGrid(4, 4, 4)


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("columns", [5, 6])
@pytest.mark.parametrize("rows", [4, 7])
def test_an_order_of_the_tokens_is_told_by_what_halves_of_the_image_change(rows, columns, prefix):
    """The change of a token is 1 for the halves in which its patch lies, and .1 for the others, as of mixed tokens."""
    grid = TokenGrid(prefix, rows, columns)
    across, down = torch.linspace(-1, 1, columns).expand(rows, -1), torch.linspace(-1, 1, rows)[:, None]
    halves = torch.stack([across <= 0, across >= 0, (down <= 0).expand_as(across), (down >= 0).expand_as(across)])
    change = torch.cat([torch.ones(4, prefix), halves.flatten(1) * 0.9 + 0.1], 1).double()
    assert not lies_elsewhere(change, grid)
    turned = halves.transpose(1, 2).flatten(1) * 0.9 + 0.1  # column by column
    assert lies_elsewhere(torch.cat([torch.ones(4, prefix), turned], 1).double(), grid)
    one_half = torch.tensor([9.0, 1, 5, 5])[:, None].expand(4, grid.total).double()
    assert not lies_elsewhere(one_half, grid)  # fully mixed, by a half that changes more: nothing is known


ASKED = {
    "grad_cam": lambda network, images: feature_layer(network, images, None),
    "attention": attended,
    "unit": patch_size,
}


@pytest.mark.parametrize("asks", ASKED)
@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"prefix": 1, "rows": 4, "columns": 4}, "states 17 tokens in all have 18"),
        ({"prefix": 10, "rows": 2, "columns": 4}, "states 10 prefix tokens itself says 2 prefix tokens and 4 x 4"),
    ],
)
def test_a_statement_that_contradicts_the_network_is_refused_by_all_that_ask(asks, stated, said):
    with pytest.raises(ValueError, match=words(said)):
        ASKED[asks](distilled(**stated), torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize("asks", ASKED)
def test_a_statement_that_agrees_with_the_network_changes_nothing(asks):
    ASKED[asks](distilled(prefix=2, rows=4, columns=4), torch.rand(2, 3, 64, 64))


def test_the_class_token_of_clip_is_known(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = transformers.CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8}, text_config=small, num_labels=3
    )
    model = transformers.CLIPForImageClassification(settings)
    network = adapted(model, Adaptation(), (3, 32, 32))[0].eval()
    images = torch.rand(2, 3, 32, 32)
    assert token_grid(network, images) == TokenGrid(1, 4, 4)
    assert attended(network, images).grid == TokenGrid(1, 4, 4)
    assert feature_layer(network, images, None).grid == TokenGrid(1, 4, 4)


def test_scores_of_single_places_are_no_default_layer():
    settings = {"img_size": 64, "num_classes": 5, "layers": (1, 1, 1, 1), "embed_dims": (12, 16, 16, 16)}
    network = timm.models.volo.VOLO(num_heads=(2, 2, 2, 2), **settings).eval()
    layer = feature_layer(network, torch.rand(2, 3, 64, 64), None)
    assert layer.name != "aux_head"
    assert not isinstance(layer.module, torch.nn.Linear)


def test_tokens_are_laid_out_row_by_row_without_the_prefix():
    grid = TokenGrid(2, 2, 3)
    tokens = torch.arange(8.0)[None, :, None]
    assert grid.laid_out(tokens).tolist() == [[[[2, 3, 4], [5, 6, 7]]]]
