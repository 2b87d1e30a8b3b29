"""timm's and transformers' networks by one line, offline: the library's own answer is the oracle."""

import builtins
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from efface.models import huggingface
from efface.models import timm as ours
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


def test_the_number_of_classes_is_that_of_the_file_or_refused(tmp_path):
    torch.save(timm.create_model("resnet10t", num_classes=7).state_dict(), tmp_path / "w.pt")
    assert ours.load("resnet10t", weights=tmp_path / "w.pt").eval()(images(64)).shape == (2, 7)
    with pytest.raises(ValueError, match=words("num_classes is 5 in the study, 7 in the file")):
        ours.load("resnet10t", weights=tmp_path / "w.pt", num_classes=5)


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
    with pytest.raises(ValueError, match=words("preprocessor_config.json give mean and std")):
        huggingface.load(str(tmp_path))
    with pytest.raises(ValueError, match=words("transformers has no image classifier save_pretrained")):
        huggingface.load(str(tmp_path), mean=MEAN, std=STD)
    saved(tmp_path, image_mean=None)
    with pytest.raises(ValueError, match=words("states no image_mean and image_std")):
        huggingface.load(str(tmp_path))


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
