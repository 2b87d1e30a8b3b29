"""timm's and transformers' networks by one line, offline: the library's own answer is the oracle."""

import builtins
import json
import re

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from efface.models import huggingface
from efface.models import timm as ours
from efface.models import torchvision as of_torchvision
from efface.models.loaded import class_names, image_size, new_layers
from efface.models.processor import as_module
from efface.plug import words as short_words
from small.elsewhere import timm, transformers
from small.messages import words
from small.tiers import first_short

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def images(size=32, channels=3, count=2):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def normal(x, mean, std):
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


# timm


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "num_classes": 5}),
        ("resnet10t", {"num_classes": 5}),
        ("convnext_atto", {"num_classes": 5}),
        ("swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_classes": 5}),
    ],
)
def test_a_timm_network_computes_what_timm_computes_behind_its_own_normalisation(tmp_path, name, kwargs):
    peer = timm.create_model(name, **kwargs).eval()
    torch.save(peer.state_dict(), tmp_path / "w.pt")
    settings = {key: value for key, value in kwargs.items() if key != "num_classes"}
    network = ours.load(name, weights=tmp_path / "w.pt", **settings).eval()
    x = images(kwargs.get("img_size", 64))
    known = peer.pretrained_cfg
    with torch.no_grad():
        torch.testing.assert_close(network(x), peer(normal(x, known["mean"], known["std"])), rtol=1e-4, atol=1e-5)
    assert type(network).__name__ == type(peer).__name__
    assert set(network.state_dict()) == set(peer.state_dict())
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_a_network_whose_configuration_has_other_means_gets_these():
    network = ours.load("vit_tiny_patch16_224", img_size=32, num_classes=3)
    assert network.normalise.mean.flatten().tolist() == pytest.approx([0.5] * 3)
    network = ours.load("resnet10t", num_classes=3)
    assert network.normalise.mean.flatten().tolist() == pytest.approx(
        timm.create_model("resnet10t").pretrained_cfg["mean"]
    )
    network = ours.load("resnet10t", num_classes=3, mean=MEAN, std=STD)
    assert network.normalise.std.flatten().tolist() == pytest.approx(STD)


def test_a_file_of_safetensors_and_an_entry_of_a_checkpoint_are_read(tmp_path):
    peer = timm.create_model("resnet10t", num_classes=7)
    safetensors.torch.save_file(peer.state_dict(), tmp_path / "w.safetensors")
    torch.save({"model": peer.state_dict(), "ema": peer.state_dict()}, tmp_path / "two.pt")
    for weights in (tmp_path / "w.safetensors", f"{tmp_path / 'two.pt'}#ema"):
        network = ours.load("resnet10t", weights=weights)
        torch.testing.assert_close(network.state_dict(), peer.state_dict())


def test_the_number_of_classes_is_that_of_the_file_or_the_last_layer_is_new(tmp_path):
    peer = timm.create_model("resnet10t", num_classes=7).state_dict()
    torch.save(peer, tmp_path / "w.pt")
    whole = ours.load("resnet10t", weights=tmp_path / "w.pt")
    assert whole.eval()(images(64)).shape == (2, 7)
    assert new_layers(whole) == new_layers(ours.load("resnet10t", num_classes=5)) == ()
    other = ours.load("resnet10t", weights=tmp_path / "w.pt", num_classes=5)
    assert new_layers(other) == ("fc",)
    assert other.eval()(images(64)).shape == (2, 5)
    same = {key: value for key, value in other.state_dict().items() if not key.startswith("fc.")}
    torch.testing.assert_close(same, {key: peer[key] for key in same})


def test_wrong_names_settings_and_files_of_timm_are_answered(tmp_path):
    with pytest.raises(ValueError, match=words("timm has no network 'resnet1o'; nearest are")):
        ours.load("resnet1o")
    with pytest.raises(ValueError, match=words("timm's resnet10t image_size")):
        ours.load("resnet10t", image_size=3)
    with pytest.raises(FileNotFoundError, match=words("there is no file gone.pt 'pretrained'")):
        ours.load("resnet10t", weights=tmp_path / "gone.pt")
    with pytest.raises(ValueError, match=words("mean is (0.1, 0.2, 0.3), std is None: give both or neither")):
        ours.load("resnet10t", mean=MEAN)


def test_images_of_one_channel_need_means_of_one_channel():
    with pytest.raises(ValueError, match=words("mean and std have 3 numbers, the images 1 channels")):
        ours.load("resnet10t", in_chans=1)
    network = ours.load("resnet10t", in_chans=1, mean=(0.5,), std=(0.5,), num_classes=4).eval()
    assert network(images(64, channels=1)).shape == (2, 4)


def test_weights_that_cannot_be_downloaded_are_said(monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("no route to the hub\nand more")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(FileNotFoundError, match=words("could not be loaded (no route to the hub) as 'weights'")):
        ours.load("resnet10t", weights="pretrained")


# transformers


def config(kind):
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    of_kind = {
        "vit": lambda: transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **small),
        "dinov2": lambda: transformers.Dinov2Config(image_size=28, patch_size=7, num_labels=5, **small),
        "swin": lambda: transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=5
        ),
        "resnet": lambda: transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
        ),
    }
    return of_kind[kind]()


def saved(folder, kind="vit", **processor):
    network = transformers.AutoModelForImageClassification.from_config(config(kind)).eval()
    network.save_pretrained(folder)
    settings = {"image_mean": list(MEAN), "image_std": list(STD), "size": {"height": 32, "width": 32}} | processor
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor"} | settings)
    )
    return network


@pytest.mark.parametrize("kind", first_short(1, ["vit", "dinov2", "swin", "resnet"]))
def test_a_model_of_a_folder_computes_what_transformers_computes_behind_its_processor(tmp_path, kind):
    peer = saved(tmp_path, kind)
    network = huggingface.load(str(tmp_path)).eval()
    x = images(28 if kind == "dinov2" else 32)
    with torch.no_grad():
        torch.testing.assert_close(network(x).logits, peer(normal(x, MEAN, STD)).logits, rtol=1e-4, atol=1e-5)
    assert set(network.state_dict()) == set(peer.state_dict())


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({}, MEAN, STD),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, [0.5] * 3, [0.5] * 3),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, [0.5] * 3, [0.2] * 3),
        ({"do_normalize": False}, [0.0] * 3, [1.0] * 3),
    ],
)
def test_the_normalisation_is_what_the_processor_does_to_an_image_of_bytes(tmp_path, settings, mean, std):
    saved(tmp_path, **settings)
    normalise = huggingface.load(str(tmp_path)).normalise
    assert normalise.mean.flatten().tolist() == pytest.approx(mean)
    assert normalise.std.flatten().tolist() == pytest.approx(std)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    theirs = processor(pixels, return_tensors="pt", do_resize=False)["pixel_values"]
    own = normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    torch.testing.assert_close(own, theirs.float(), rtol=1e-4, atol=1e-4)


def test_given_means_replace_those_of_the_processor(tmp_path):
    saved(tmp_path)
    assert huggingface.load(
        str(tmp_path), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 2.0)
    ).normalise.std.flatten().tolist() == [1, 1, 2]


def test_a_model_without_a_trained_last_layer_is_refused_unless_its_classes_are_given(tmp_path):
    saved(tmp_path)
    transformers.ViTModel(config("vit")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=words("the weights lack classifier num_classes")):
        huggingface.load(str(tmp_path))
    assert huggingface.load(str(tmp_path), num_classes=3)(images()).logits.shape == (2, 3)


def test_what_is_no_model_and_what_has_no_processor_is_said(tmp_path):
    with pytest.raises(ValueError, match=words("the folder has no config.json save_pretrained")):
        huggingface.load(str(tmp_path))
    with pytest.raises(ValueError, match=words("there is no folder nowhere")):
        huggingface.load(str(tmp_path / "nowhere"))
    saved(tmp_path)
    with pytest.raises(ValueError, match=words("config.json is a file")):
        huggingface.load(str(tmp_path / "config.json"))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=words("preprocessor_config.json give mean and std")):
        huggingface.load(str(tmp_path))
    saved(tmp_path, image_mean=None)
    with pytest.raises(ValueError, match=words("states no image_mean and image_std")):
        huggingface.load(str(tmp_path))


KEPT = {"do_resize": False, "do_center_crop": False}
PROCESSORS = {
    "EfficientNet divides twice": ("EfficientNetImageProcessor", {}),
    "EfficientNet with an offset": ("EfficientNetImageProcessor", {"include_top": False, "rescale_offset": True}),
    "MobileViT flips channels": ("MobileViTImageProcessor", {}),
    "ConvNeXt": ("ConvNextImageProcessor", {}),
    "BEiT": ("BeitImageProcessor", {}),
    "LeViT": ("LevitImageProcessor", {}),
    "CLIP": ("CLIPImageProcessor", {}),
    "SigLIP": ("SiglipImageProcessor", {}),
    "one number": ("ViTImageProcessor", {"image_mean": 0.4, "image_std": 0.3}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_network_gets_what_the_processor_of_its_kind_makes_of_an_image(tmp_path, name):
    saved(tmp_path)
    kind, settings = PROCESSORS[name]
    processor = getattr(transformers, kind)(**settings)
    processor.save_pretrained(tmp_path)
    normalise = huggingface.load(str(tmp_path)).normalise
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    theirs = processor(pixels, return_tensors="pt", **KEPT)["pixel_values"]
    own = normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    torch.testing.assert_close(own, theirs.float(), rtol=1e-4, atol=1e-4)


def test_means_that_the_settings_state_and_the_processor_uses_are_taken_as_they_are(tmp_path):
    saved(tmp_path, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    normalise = huggingface.load(str(tmp_path)).normalise
    assert normalise.mean.flatten().tolist() == torch.tensor([0.485, 0.456, 0.406]).tolist()
    assert normalise.std.flatten().tolist() == torch.tensor([0.229, 0.224, 0.225]).tolist()


def test_a_processor_that_cannot_be_run_is_read_from_its_file_or_refused(tmp_path, monkeypatch):
    def missing(*_args, **_kwargs):
        raise ImportError("needs a package")

    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", missing)
    saved(tmp_path, image_std=0.5)
    normalise = huggingface.load(str(tmp_path)).normalise
    assert normalise.mean.flatten().tolist() == pytest.approx(MEAN)
    assert normalise.std.flatten().tolist() == [0.5] * 3
    for key in ("do_flip_channel_order", "rescale_offset", "include_top"):
        saved(tmp_path, **{key: True})
        with pytest.raises(ValueError, match=words(f"image processor {key} (needs a package); give mean and std")):
            huggingface.load(str(tmp_path))
    saved(tmp_path, image_mean=[0.5])
    with pytest.raises(ValueError, match=words("states 1 numbers as image_mean the images have 3 channels")):
        huggingface.load(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: 1 - x, "mixes or inverts"),
        (lambda x: x.mean(0, keepdim=True).repeat(3, 1, 1), "mixes or inverts"),
        (lambda x: x[:1], "gives 1 channels, the network takes 3"),
        (lambda x: x**2, "is no factor and summand for each channel: the largest difference is"),
        (lambda x: x - x.std((1, 2), keepdim=True), "is no factor and summand for each channel"),
    ],
)
@pytest.mark.parametrize("stated", [{}, {"do_normalize": False}])
def test_a_processor_that_does_more_than_normalise_channels_is_refused(change, said, stated):
    with pytest.raises(ValueError, match=words(said)):
        as_module(lambda picture: change(picture / 255), stated, 3)


def test_a_processor_that_always_resizes_is_compared_on_plain_pictures():
    module = as_module(lambda picture: (picture / 255 * 4 - 1)[[2, 1, 0], :8, :8], {"do_normalize": False}, 3)
    x = images()
    torch.testing.assert_close(module(x), (x * 4 - 1).flip(1), rtol=1e-5, atol=1e-5)


def test_a_processor_in_the_file_of_all_processors_is_read(tmp_path):
    saved(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert huggingface.load(str(tmp_path)).normalise.mean.flatten().tolist() == pytest.approx(MEAN)


def test_a_network_of_one_channel_needs_no_means(tmp_path):
    settings = config("vit")
    settings.num_channels = 1
    peer = transformers.AutoModelForImageClassification.from_config(settings).eval()
    peer.save_pretrained(tmp_path)
    given = {"image_processor_type": "ViTImageProcessor", "do_normalize": False, "do_resize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    x = images(channels=1)
    with torch.no_grad():
        theirs = peer(x).logits
        torch.testing.assert_close(huggingface.load(str(tmp_path)).eval()(x).logits, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [None, 5])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model."])
def test_a_prefix_of_all_names_is_seen_through(tmp_path, prefix, classes):
    peer = saved(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    renamed = {prefix + key: value for key, value in state.items()}
    safetensors.torch.save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    network = huggingface.load(str(tmp_path), num_classes=classes)
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(network(x).logits, peer(normal(x, MEAN, STD)).logits, rtol=1e-4, atol=1e-5)
    assert new_layers(network) == ()


@pytest.mark.parametrize("classes", [None, 5, 3])
def test_other_weights_than_the_last_layer_are_never_random(tmp_path, classes):
    saved(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    renamed = {f"somewhere.{key}": value for key, value in state.items()}
    safetensors.torch.save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=words("the weights lack would be random somewhere")) as error:
        huggingface.load(str(tmp_path), num_classes=classes)
    assert "num_classes" not in str(error.value)


def test_a_number_of_classes_that_is_a_width_of_the_network_hides_no_random_weights(tmp_path):
    peer = saved(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    width = peer.config.hidden_size
    lost = [key for key in state if "classifier" not in key and state[key].shape[0] == width][-1]
    del state[lost]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    for classes in (width, None):
        with pytest.raises(ValueError, match=words(f"the weights lack {lost}, would be random")) as error:
            huggingface.load(str(tmp_path), num_classes=classes)
        assert "num_classes" not in str(error.value)


def test_the_last_layer_may_hold_more_than_weights_of_the_classes(tmp_path):
    """LeViT normalises the features in its last layer: a file without that layer lacks both."""
    sizes = {"hidden_sizes": [8, 8, 8], "depths": [1, 1, 1], "num_attention_heads": [1, 1, 1], "key_dim": [4, 4, 4]}
    settings = transformers.LevitConfig(image_size=64, num_labels=3, **sizes)
    transformers.LevitForImageClassification(settings).levit.save_pretrained(tmp_path)
    network = huggingface.load(str(tmp_path), num_classes=4, mean=MEAN, std=STD)
    assert set(new_layers(network)) == {"classifier.batch_norm", "classifier.linear"}
    with pytest.raises(ValueError, match=words("would be random num_classes")):
        huggingface.load(str(tmp_path), mean=MEAN, std=STD)


def test_names_of_the_classes_are_those_of_the_folder(tmp_path):
    saved(tmp_path)
    assert class_names(huggingface.load(str(tmp_path))) == ()  # LABEL_0, LABEL_1, ... are the library's own
    settings = json.loads((tmp_path / "config.json").read_text())
    named = ["dog", "cat", "ant", "bee", "cow"]
    (tmp_path / "config.json").write_text(
        json.dumps(
            settings | {"id2label": dict(enumerate(named)), "label2id": {each: i for i, each in enumerate(named)}}
        )
    )
    assert class_names(huggingface.load(str(tmp_path))) == tuple(named)
    assert class_names(huggingface.load(str(tmp_path), num_classes=3)) == ()  # the last layer is new


def test_a_new_last_layer_is_noted(tmp_path):
    saved(tmp_path)
    assert new_layers(huggingface.load(str(tmp_path))) == ()
    assert new_layers(huggingface.load(str(tmp_path), num_classes=3)) == ("classifier",)


def test_weights_in_half_become_float32_unless_asked(tmp_path):
    saved(tmp_path).half().save_pretrained(tmp_path)
    assert huggingface.load(str(tmp_path)).dtype == torch.float32
    assert huggingface.load(str(tmp_path), dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("deit_tiny_distilled_patch16_224", {"img_size": 32, "depth": 1}),
        ("levit_128s", {"img_size": 64, "depth": (1, 1, 1)}),
    ],
)
def test_networks_with_two_last_layers_have_the_classes_of_the_file(tmp_path, name, kwargs):
    peer = timm.create_model(name, num_classes=5, **kwargs)
    torch.save({f"module.{key}": value for key, value in peer.state_dict().items()}, tmp_path / "w.pt")
    assert ours.load(name, weights=tmp_path / "w.pt", **kwargs).eval()(images(kwargs["img_size"])).shape == (2, 5)


VIT = {"depth": 1, "embed_dim": 24, "num_heads": 2}


def swin_of_its_authors(state):
    """The names in Microsoft's files: the head without `fc`, each reduction with the stage before, an index besides."""
    named = {}
    for key, value in state.items():
        stage = re.match(r"layers\.(\d)\.downsample", key)
        key = f"layers.{int(stage[1]) - 1}{key[len('layers.1') :]}" if stage else key.replace("head.fc.", "head.")
        named[key] = value
    return named | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long)}


@pytest.mark.parametrize("kind", ["swin", "dinov2"])
def test_a_file_of_the_authors_is_renamed_by_timm(tmp_path, kind):
    name, kwargs, side = {
        "swin": (
            "swin_tiny_patch4_window7_224",
            {"img_size": 56, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "num_classes": 5},
            56,
        ),
        "dinov2": ("vit_small_patch14_dinov2", {"img_size": 28, "num_classes": 5, **VIT}, 28),
    }[kind]
    peer = timm.create_model(name, **kwargs).eval()
    state = peer.state_dict()
    torch.save(
        swin_of_its_authors(state) if kind == "swin" else state | {"mask_token": torch.ones(1, 24)}, tmp_path / "w"
    )
    x, known = images(side), peer.pretrained_cfg
    network = ours.load(name, weights=tmp_path / "w", **kwargs).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), peer(normal(x, known["mean"], known["std"])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [{}, {"mask_token": torch.ones(1, 24)}])
def test_positions_of_another_size_are_refused_with_the_settings_that_help(tmp_path, more):
    name = "vit_small_patch14_dinov2"
    torch.save(timm.create_model(name, img_size=42, num_classes=5, **VIT).state_dict() | more, tmp_path / "w")
    with pytest.raises(
        ValueError, match=words("pos_embed 1x5x24 (in the file 1x10x24) img_size dynamic_img_size: true")
    ):
        ours.load(name, weights=tmp_path / "w", img_size=28, **VIT)
    network = ours.load(name, weights=tmp_path / "w", img_size=42, dynamic_img_size=True, **VIT).eval()
    assert network(images(28)).shape == (2, 5)


def test_two_last_layers_are_new_with_another_number_of_classes(tmp_path):
    name = "deit_tiny_distilled_patch16_224"
    torch.save(timm.create_model(name, img_size=32, num_classes=5, **VIT).state_dict(), tmp_path / "w")
    network = ours.load(name, weights=tmp_path / "w", img_size=32, num_classes=3, **VIT)
    assert set(new_layers(network)) == {"head", "head_dist"}
    assert network.eval()(images(32)).shape == (2, 3)


@pytest.mark.parametrize("entry", ["", "state_dict", "both"])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_file_with_two_networks_behind_prefixes_needs_a_choice(tmp_path, entry, wrapper):
    name, kwargs = "vit_tiny_patch16_224", {"img_size": 32, "num_classes": 5, **VIT}
    state = timm.create_model(name, **kwargs).state_dict()
    two = {f"{wrapper}model.{key}": value for key, value in state.items()}
    two |= {f"{wrapper}ema.net.{key}": value + 1 for key, value in state.items()}
    path = tmp_path / "w.pt"
    later = {key: value + 2 for key, value in two.items()}
    torch.save({"": two, "state_dict": {"state_dict": two}, "both": {"one": later, "both": two}}[entry], path)
    given = f"{path}#both" if entry == "both" else str(path)
    with pytest.raises(ValueError, match="2 networks that fit") as error:
        ours.load(name, weights=given, **kwargs)
    choices = [text.strip() for text in str(error.value).partition("write weights:")[2].split(" or ")]
    before = f"{path}#both." if entry == "both" else f"{path}#"
    assert choices == [f"{before}ema.net", f"{before}model"]
    for more, choice in zip((1, 0), choices, strict=True):
        network = ours.load(name, weights=choice, **kwargs)
        torch.testing.assert_close(network.state_dict(), {key: value + more for key, value in state.items()})


def test_a_folder_of_timm_is_loaded_by_its_name(tmp_path):
    peer = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5, **VIT).eval()
    folder = tmp_path / "of_timm"
    arguments = {"img_size": 32, **VIT}
    timm.models.save_for_hf(
        peer, folder, model_args=arguments, model_config={"num_classes": 5}, safe_serialization=False
    )
    network = ours.load(f"local-dir:{folder}", weights="pretrained").eval()
    torch.testing.assert_close(network.state_dict(), peer.state_dict())
    assert new_layers(network) == ()
    assert image_size(network) == tuple(network.pretrained_cfg["input_size"][1:])
    assert image_size(ours.load("resnet10t")) is None, "weights that were never trained have no size"


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (32, 32)),
        ({"size": {"height": 24, "width": 40}}, (24, 40)),
        ({"do_resize": False}, None),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "crop_size": 36}, (36, 36)),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 40}}, (40, 40)),
        ({"image_processor_type": "gone", "size": {"height": 24, "width": 40}}, (24, 40)),
        ({"image_processor_type": "gone", "size": 24}, (24, 24)),
        ({"image_processor_type": "gone", "size": {"shortest_edge": 40}}, None),
        ({"image_processor_type": "gone", "do_center_crop": True, "crop_size": {"height": 20, "width": 20}}, (20, 20)),
    ],
)
def test_the_size_of_the_images_of_the_weights_is_that_which_the_processor_makes(tmp_path, settings, size):
    saved(tmp_path, "resnet", **settings)
    assert image_size(huggingface.load(str(tmp_path))) == size


def test_published_weights_of_torchvision_have_the_size_of_their_own_preparation(monkeypatch):
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: state)
    assert image_size(of_torchvision.load("resnet18", weights="DEFAULT")) == (224, 224)
    assert image_size(of_torchvision.load("resnet18")) is None


@pytest.mark.parametrize(
    ("name", "module", "load"), [("timm", "timm", ours.load), ("x", "transformers", huggingface.load)]
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, name, module, load):
    plain = builtins.__import__

    def without(wanted, *args, **kwargs):
        if wanted == module:
            raise ImportError(wanted)
        return plain(wanted, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=words("is not installed; run: pip install 'efface[")):
        load(name)


def test_their_short_words_name_their_loaders():
    index = short_words.index("model")
    assert index["timm"] == "efface.models.timm.load"
    assert index["huggingface"] == "efface.models.huggingface.load"
    assert issubclass(type(ours.load("resnet10t", num_classes=2)), nn.Module)
