"""Transformer input sampling: against a pass of the kept tokens, written out, and what holds for every method."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch.overrides import _get_current_function_mode_stack as function_modes

from efface.methods.attention import tis
from small.batches import all_inputs, explain, uniform_images
from small.elsewhere import timm
from small.networks import Tiny, seeded, state_of

FEW = {"samples": 6}


def network(**settings):
    """A small ViT of timm with 3 x 2 patches, whose weights are large enough for probabilities that differ."""
    settings = {"img_size": (48, 32), "embed_dim": 12, "num_heads": 2, "depth": 2, "num_classes": 3} | settings
    made = seeded(lambda: timm.create_model("vit_tiny_patch16_224", **settings)).double().eval()
    for name, value in made.named_parameters():
        value.data = seeded(lambda value=value: torch.randn_like(value), len(name)) / 2
    return made


def inputs(count=3):
    found = all_inputs(count, text="tis")
    return found | {"images": uniform_images(count, 48, 32), "targets": torch.arange(count) % 3}


def tokens_of(model, image):
    """The tokens of one image before the first block, and after each."""
    patches = model.patch_embed.proj(image[None]).flatten(2).mT[0]
    prefix = model.cls_token[0] if model.cls_token is not None else patches[:0]
    tokens = [torch.cat([prefix, patches]) + model.pos_embed[0]]
    for block in model.blocks:
        tokens.append(block(tokens[-1][None])[0])
    return tokens


def slow(model, image, target, seed, samples, visible):
    prefix = model.num_prefix_tokens
    first, *after = tokens_of(model, image)
    channels = torch.cat([each[prefix:].T for each in after]).detach()
    kept = KMeans(samples, n_init=3, max_iter=600, random_state=int(seed) % 2**32).fit(channels.float().numpy())
    total, shown = torch.zeros(6).double(), torch.zeros(6).double()
    for centre in kept.cluster_centers_:
        largest = sorted(range(6), key=lambda patch: -centre[patch])[: int(6 * visible)]
        mask = torch.zeros(6).double()
        mask[largest] = 1.0
        tokens = first[[*range(prefix), *(prefix + patch for patch in sorted(largest))]]
        for block in model.blocks:
            tokens = block(tokens[None])[0]
        pooled = model.norm(tokens)[0] if prefix else model.fc_norm(tokens.mean(0))
        total += model.head(pooled).softmax(0)[target].detach() * mask
        shown += mask
    return F.interpolate((total / shown.clamp(min=1)).view(1, 1, 3, 2), size=(48, 32), mode="bilinear")[0, 0]


@pytest.mark.parametrize("visible", [0.5, 0.9])
@pytest.mark.parametrize("settings", [{}, {"class_token": False, "global_pool": "avg"}], ids=["class token", "mean"])
def test_maps_are_those_of_the_kept_tokens_written_out(settings, visible):
    model, given = network(**settings), inputs(2)
    found = explain(tis, model, given, visible=visible, **FEW)
    for row, asked in enumerate(zip(given["images"], given["targets"], given["seeds"], strict=True)):
        torch.testing.assert_close(found[row], slow(model, *asked, samples=6, visible=visible))
    assert found.std() > 0


@pytest.mark.parametrize("max_batch", [1, 4, 100])
def test_a_batch_gives_the_maps_of_its_images_alone(max_batch):
    model, given = network(), inputs()
    singles = [explain(tis, model, {key: rows[i : i + 1] for key, rows in given.items()}, **FEW) for i in range(3)]
    passed = []
    model.blocks[0].register_forward_hook(lambda module, arguments, output: passed.append(output.shape[:2]))
    found = explain(tis, model, given, max_batch=max_batch, **FEW)
    torch.testing.assert_close(found, torch.cat(singles), rtol=1e-9, atol=1e-12)
    masked = [count for count, tokens in passed if tokens == 4]
    assert max(masked) <= max_batch
    assert sum(masked) >= 18


def test_the_seed_of_an_image_starts_its_clusters():
    model, given = network(), inputs()
    found = [explain(tis, model, given | {"seeds": given["seeds"] + step}, **FEW) for step in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_one_hot_weights_are_the_class():
    model, given = network(), inputs()
    found = explain(tis, model, given, score="logit", **FEW)
    hot = given | {"targets": F.one_hot(given["targets"], 3).double()}
    torch.testing.assert_close(explain(tis, model, hot, score="logit", **FEW), found)


@pytest.mark.parametrize("calls", [0, 4, 7, None])
def test_network_and_torch_are_as_before_also_after_an_exception(calls):
    model, given, passed = network().train(), inputs(), []
    model.head.bias.requires_grad_(False)
    explain(tis, model, given, **FEW)

    def fail(module, arguments):
        passed.append(module)
        if calls is not None and len(passed) > calls:
            raise RuntimeError("out of memory")

    model.head.register_forward_pre_hook(fail)
    before = state_of(model, *given.values())
    if calls is None:
        explain(tis, model, given, **FEW)
    else:
        with pytest.raises(RuntimeError, match="out of memory"):
            explain(tis, model, given, **FEW)
    assert function_modes() == []
    assert state_of(model, *given.values()) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"visible": 0.0}, r"visible is 0\.0; expected above 0"),
        ({"visible": 1.5}, r"visible is 1\.5"),
        ({"samples": 0}, "samples is 0"),
        ({"max_batch": 0}, "max_batch is 0"),
        ({"seeds": None}, "seeds are missing"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        explain(tis, network(), inputs(), **FEW | settings)


def test_networks_whose_tokens_cannot_be_dropped_are_refused():
    with pytest.raises(ValueError, match="Tiny computes no attention"):
        explain(tis, Tiny(3, 4).double().eval(), inputs())
    beit = seeded(lambda: timm.create_model("beit_base_patch16_224", img_size=32, depth=2, embed_dim=12, num_heads=2))
    given = inputs() | {"images": uniform_images(3, 32)}
    with pytest.raises(ValueError, match="adds its positions inside the attention"):
        explain(tis, beit.double().eval(), given)
