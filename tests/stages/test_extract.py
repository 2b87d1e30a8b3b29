"""Stage extract: a method that can tell the classes spares the pass that would ask for them, and changes no byte."""

import shutil

import pytest
import torch

from efface.base.types import Images, Maps, Targets
from efface.execute import serial
from efface.methods.cam import grad_cam
from efface.models import resnet
from efface.stages import extract, train
from efface.stages.run.map_files import map_store, provenance
from efface.stages.run.run import Run
from efface.stages.work import extraction, map_blocks
from efface.store.maps import finished_rows, partial_path
from efface.study.study import Study

CAM = {"name": "cam", "method": "efface.methods.cam.grad_cam"}
GRADIENT = {"name": "gradient", "method": "efface.methods.gradient.gradient"}
ROWS = 48


def resnet_study(out, *methods, **changes):
    settings = {
        "out": out,
        "data": {"call": "efface.data.patches.patches", "kwargs": {"n_train": 8, "n_test": ROWS, "size": 16}},
        "model": {"call": "efface.models.resnet.resnet8", "kwargs": {"num_classes": 4}},
        "attribution_methods": list(methods),
        "max_batch": 16,
        "executor": "efface.execute.serial",
    }
    return Study(**settings | changes)


def made(folder):
    """Every byte of maps and answers."""
    paths = [*folder.glob("maps/*"), *folder.glob("models/logits-*")]
    return {each.name: each.read_bytes() for each in paths}


@pytest.fixture
def asked(monkeypatch):
    """Rows that the network, or its copy, is asked about."""
    seen, plain = [], resnet.ResNet.forward

    def forward(self, images):
        seen.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(resnet.ResNet, "forward", forward)
    return seen


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """The files of a study whose network is asked for the classes first."""
    one = resnet_study(tmp_path_factory.mktemp("before") / "run", CAM, GRADIENT)
    assert train.train(one) == []
    assert extract.extract(one) == []
    return one.out


@pytest.mark.parametrize("order", [(CAM, GRADIENT), pytest.param((GRADIENT, CAM), marks=pytest.mark.long)])
def test_the_files_are_those_of_a_pass_that_asks_first(tmp_path, before, order, capsys):
    assert extract.extract(resnet_study(tmp_path / "run", *order)) == []
    assert made(tmp_path / "run") == made(before)
    assert len(made(before)) == 3
    told = Run(resnet_study(tmp_path / "run", CAM)).target_classes("test")
    assert f"of {ROWS} test images right" in capsys.readouterr().out
    assert len(told.unique()) > 1


def test_one_pass_an_image_is_enough_for_a_class_activation_map(tmp_path, asked):
    rows = {}
    for name, methods in {"cam": [CAM], "both": [CAM, GRADIENT], "gradient": [GRADIENT]}.items():
        asked.clear()
        assert extract.extract(resnet_study(tmp_path / name, *methods)) == []
        rows[name] = sum(each for each in asked if each == 16)  # the study's batch; methods are tried on one or two
    assert rows == {"cam": ROWS, "both": 2 * ROWS, "gradient": 2 * ROWS}


def test_stopped_on_the_way_it_ends_at_the_same_files(tmp_path, before, monkeypatch):
    one, plain, blocks = resnet_study(tmp_path / "run", CAM, GRADIENT), map_blocks.attribute, []

    def fail_at_the_third(*arguments, **settings):
        blocks.append(1)
        if len(blocks) == 3:
            raise KeyboardInterrupt
        return plain(*arguments, **settings)

    monkeypatch.setattr(map_blocks, "attribute", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        extract.extract(one)
    monkeypatch.undo()
    assert finished_rows(partial_path(one.out / "maps" / "cam-test.h5")) == 32
    assert not list(one.out.glob("models/logits-*"))
    assert extract.extract(one) == []
    assert made(one.out) == made(before)


def test_stopped_before_its_name_it_is_only_renamed(tmp_path, before, asked):
    one = resnet_study(tmp_path / "run", CAM, GRADIENT)
    shutil.copytree(before, one.out)
    path = one.out / "maps" / "cam-test.h5"
    path.rename(partial_path(path))
    asked.clear()
    assert extract.extract(one) == []
    assert 16 not in asked
    assert made(one.out) == made(before)


def test_rows_that_explain_another_class_are_made_again(tmp_path, before):
    one = resnet_study(tmp_path / "run", CAM, GRADIENT)
    shutil.copytree(before, one.out)
    store = map_store(Run(one), "cam", "test")
    path, wrong = one.out / "maps" / "cam-test.h5", store.targets.clone()
    wrong[5] = (wrong[5] + 1) % 4
    path.unlink()
    run = Run(one)
    made_from = provenance(run, run.entries[0], "cam", "test")
    writer = extraction.MapWriter(path, made_from, wrong, torch.zeros(16, 16))
    writer.write(0, torch.zeros(ROWS, 16, 16))
    writer.abandon()
    writer = extraction.MapWriter(path, made_from, store.targets, torch.zeros(16, 16))
    assert (~writer.done).nonzero()[0].tolist() == [5]
    writer.abandon()


def test_true_classes_are_never_asked_for(tmp_path):
    one = resnet_study(tmp_path / "run", {"name": "cam", "method": f"{__name__}.none_asked"}, explain="true")
    assert extract.extract(one) == []
    run = Run(one)
    assert torch.equal(map_store(run, "cam", "test").targets, run.data["test"].targets)


def none_asked(model, images: Images, targets: Targets, *, classes_of=None) -> Maps:
    """Stands for a method that can ask for the classes itself."""
    assert classes_of is None
    return images.mean(1) * (1 + targets[:, None, None])


def test_memory_that_runs_out_on_the_way_changes_no_byte(tmp_path, before, monkeypatch):
    plain, sizes = map_blocks.attribute, []

    def short(method, model, images, *arguments, **settings):
        found = plain(method, model, images, *arguments, **settings)
        sizes.append(len(images))
        if settings["max_batch"] > 8 and len(sizes) > 1:  # the answers of this pass have been told by now
            raise torch.OutOfMemoryError("none left")
        return found

    monkeypatch.setattr(map_blocks, "attribute", short)
    assert extract.extract(resnet_study(tmp_path / "run", CAM, GRADIENT)) == []
    ours, expected = Run(resnet_study(tmp_path / "run", CAM)), Run(resnet_study(before, CAM))
    torch.testing.assert_close(ours.logits("test"), expected.logits("test"))
    torch.testing.assert_close(
        *(map_store(each, "cam", "test").take(torch.arange(ROWS)) for each in (ours, expected)), rtol=1e-4, atol=1e-6
    )


def forgetful(model, images, targets, *, classes_of=None):
    """A method that asks for half of the classes."""
    if classes_of is not None:
        targets[::2] = classes_of(model(images[::2]))
    return grad_cam(model, images, targets)


def test_a_method_that_asks_for_some_classes_only_is_told(tmp_path):
    failures = extract.extract(resnet_study(tmp_path / "run", {"name": "mine", "method": f"{__name__}.forgetful"}))
    assert len(failures) == 1
    assert "attribution_methods.mine: asked for the classes of 8 images out of 16; call classes_of once" in failures[0]


def watching(work, tasks, *, progress):
    """An executor that notes what it is given, and whether the classes are known by then."""
    tasks, of = list(tasks), work.work.work.work
    for task in tasks:
        (of.study.out / f"{task.method} {of.run.has_logits(task.split)}").touch()
    yield from serial(work, tasks, progress=progress)


def test_the_method_that_asks_runs_before_the_others_are_handed_out(tmp_path):
    one = resnet_study(tmp_path / "run", GRADIENT, CAM, executor=f"{__name__}.watching")
    assert extract.extract(one) == []
    assert [each.name for each in one.out.glob("* *")] == ["gradient True"]


def test_entries_with_equal_settings_are_extracted_once(tmp_path, capsys):
    calls = {"method": "efface.methods.gradient.gradient"}, {"method": "gradient"}
    several = [{"name": name} | call for name, call in zip("ab", calls, strict=True)]
    study = resnet_study(
        tmp_path / "run", CAM, *several, GRADIENT | {"name": "other", "kwargs": {"score": "log_probability"}}
    )
    assert train.train(study) == []
    assert extract.extract(study) == []
    assert "extracted 3 of 3 sets of maps" in capsys.readouterr().out
    first, second, other = (tmp_path / "run" / "maps" / f"{name}-test.h5" for name in ("a", "b", "other"))
    assert first.samefile(second)
    assert first.read_bytes() != other.read_bytes()
    run = Run(study)
    assert map_store(run, "b", "test").take(torch.arange(3)).equal(map_store(run, "a", "test").take(torch.arange(3)))
    assert extract.extract(study) == []
    assert "extracted" not in capsys.readouterr().out


def test_entries_with_equal_settings_fail_together(tmp_path):
    several = [CAM | {"name": name, "kwargs": {"layer": "nowhere"}} for name in "ab"]
    study = resnet_study(tmp_path / "run", *several, GRADIENT)
    train.train(study)
    (failure,) = extraction.extract_missing(Run(study))
    assert "nowhere" in failure
    assert {each.name for each in (tmp_path / "run" / "maps").glob("*.h5")} == {"gradient-test.h5"}
