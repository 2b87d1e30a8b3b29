"""A dotted path and its kwargs."""

import functools
import itertools
import pickle
import sys
import textwrap

import pytest

import efface.plug.call
import efface.plug.identity
import efface.plug.source
from efface.plug import call
from efface.plug.call import Call
from efface.store.keys import NUMERICS
from small.caches import forget
from small.messages import names, words

NUMBER = itertools.count()


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Writes a module beside the study, under a name of its own, and forgets all that is cached about it."""
    monkeypatch.syspath_prepend(tmp_path)
    written = set()

    def write(text, name=None):
        name = name or f"beside_{next(NUMBER)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        written.add(name)
        for each in written:
            sys.modules.pop(each, None)
        forget(call, efface.plug.source, efface.plug.identity)
        return name

    yield write
    for each in written:
        sys.modules.pop(each, None)


def test_calls_with_kwargs_and_what_is_wanted_of_the_offer(beside):
    name = beside("""
        def f(x, *, a=1, seeds=None, max_batch=7):
            return x, a, seeds, max_batch
    """)
    assert Call(call=f"{name}.f", kwargs={"a": 2})(0) == (0, 2, None, 7)
    assert Call(call=f"{name}.f", kwargs={"max_batch": 3})(0, seeds=5, max_batch=9, masks=1) == (0, 1, 5, 3)
    assert Call(call=f"{name}.f").wants("max_batch")
    assert not Call(call=f"{name}.f", kwargs={"max_batch": 3}).wants("max_batch")
    assert not Call(call=f"{name}.f").wants("masks")


def test_short_form_hash_and_pickle():
    short, long = Call.model_validate("math.hypot"), Call(call="math.hypot", kwargs={})
    assert short == long
    assert hash(short) == hash(long)
    one, two = (Call(call="a.b", kwargs=kwargs) for kwargs in ({"x": [1], "y": {"z": 2}}, {"y": {"z": 2}, "x": [1]}))
    assert one == two
    assert hash(one) == hash(two)
    assert one.text == two.text
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert len({one, two, short, long}) == 2


def test_attributes_of_attributes_and_modules_of_packages():
    assert call.resolve("functools.partial") is functools.partial
    assert call.resolve("collections.OrderedDict.fromkeys")("a") == {"a": None}
    assert call.resolve("os.path.join")("a", "b") == "a/b"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gradient", "gradient module.function"),
        ("a..b", "dotted path"),
        ("a b.c", "dotted path"),
        ("no_such_package.f", "no_such_package"),
        ("efface.erase.post.absolut", "efface.erase.post absolut absolute"),
        ("efface.methods.gradeint.gradient", "efface.methods gradeint gradient"),
        ("collections.OrderedDict.nothing", "collections.OrderedDict nothing"),
    ],
)
def test_wrong_paths(path, said):
    with pytest.raises(ValueError, match=words(said)):
        call.resolve(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nimport no_such_thing\ndef f(): pass\n", "ModuleNotFoundError no_such_thing"),
        ("x = 1\n1 / 0\ndef f(): pass\n", "ZeroDivisionError"),
        ("x = 1\ndef f(:\n", "SyntaxError"),
        ("x = 1\nraise SystemExit('stop')\n", "SystemExit stop"),
    ],
)
def test_error_inside_a_module_is_shown_as_that_error(beside, text, said):
    name = beside(text)
    with pytest.raises(ValueError, match=words(f"{name} {said} {name}.py:2")) as found:
        call.resolve(f"{name}.f")
    assert "no module" not in str(found.value)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("path", "kwargs", "said"),
    [
        ("efface.impute.blur", {"sigm": 2.0}, "sigm sigma"),
        ("efface.impute.blur", {"sigma": "two"}, "sigma two"),
        ("efface.impute.blur", {"sigma": True}, "sigma True"),
        ("efface.methods.path.integrated_gradients", {"steps": 50.0}, "steps 50.0"),
        ("efface.impute.blur", {"sigma": [2]}, "sigma [2]"),
        ("efface.__name__", {}, "efface.__name__ str"),
        ("efface.erase.blur.gaussian_blur", {}, "(images, removed)"),
        ("efface.impute.channel_mean", {}, "mean"),
    ],
)
def test_binding_is_checked(path, kwargs, said):
    with pytest.raises(ValueError, match=words(said)):
        Call(call=path, kwargs=kwargs).check(("images", "removed"))


def test_binding_takes_what_fits():
    Call(call="efface.impute.blur", kwargs={"sigma": 2}).check(("images", "removed"))
    Call(call="efface.impute.channel_mean").check(("images", "removed"), ("mean",))
    Call(call="builtins.dict", kwargs={"anything": 1}).check(())


def test_identity_follows_the_code_and_only_the_code(beside):
    helper = beside("def g():\n    return 1\n")
    source = f"import {helper}\n\n\ndef f():\n    return {helper}.g()\n"
    name = beside(source)
    before = Call(call=f"{name}.f").identity()
    assert before["call"] == f"{name}.f"

    beside(
        f'"""New words."""\nimport {helper}\n\n# a comment\ndef f():\n    """More."""\n    return {helper}.g()\n', name
    )
    assert Call(call=f"{name}.f").identity() == before
    beside(source.replace("g()", "g() + 1"), name)
    assert Call(call=f"{name}.f").identity() != before
    beside(source, name)
    assert Call(call=f"{name}.f").identity() == before
    beside("def g():\n    return 2\n", helper)
    assert Call(call=f"{name}.f").identity() != before
    assert Call(call=f"{name}.f", kwargs={"a": 1}).identity()["kwargs"] == {"a": 1}


def test_identity_of_a_relative_import_and_of_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / (name := f"beside_{next(NUMBER)}")
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "low.py").write_text("X = 1\n")
    (package / "high.py").write_text("from .low import X\n\n\ndef f():\n    return X\n")

    def identity():
        for each in [each for each in sys.modules if each.split(".")[0] == name]:
            sys.modules.pop(each)
        forget(call, efface.plug.source, efface.plug.identity)
        return Call(call=f"{name}.high.f").identity()

    before = identity()
    assert identity() == before
    (package / "low.py").write_text("X = 22\n")
    assert identity() != before
    assert [len(each) for each in Call(call="torch.optim.Adam").identity()["source"]] == [16, 16]  # the path, the code


def raised():
    """The declared versions that are not 1."""
    return {name: version for name, version in NUMERICS.items() if version != 1}


def test_identity_follows_efface_and_the_module_that_the_path_names(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"beside_{next(NUMBER)}"
    text = "from functools import partial\n\nfrom efface.erase.post import square\n\nf = partial(square)\n"
    (tmp_path / f"{name}.py").write_text(text)
    own = Call(call=f"{name}.f").identity()
    assert own["numerics"] == raised()
    monkeypatch.setitem(NUMERICS, "post.square", 2)  # its source tells nothing of efface: the declared versions do
    assert Call(call=f"{name}.f").identity() == own | {"numerics": raised()}
    assert raised()["post.square"] == 2
    sys.modules.pop(name)
    forget(call, efface.plug.source, efface.plug.identity)
    (tmp_path / f"{name}.py").write_text(text + "g = 1\n")
    assert Call(call=f"{name}.f").identity()["source"] != own["source"]


def test_identity_of_a_plug_in_of_efface_is_its_word_and_version_whichever_path_leads_to_it(beside, monkeypatch):
    path = "efface.methods.cam.grad_cam"
    assert Call(call=path).identity() == {"call": "method.grad_cam", "version": 1, "kwargs": {}}
    name = beside("from efface.methods.cam import grad_cam\n")
    assert Call(call=f"{name}.grad_cam").identity() == Call(call=path).identity()
    monkeypatch.setitem(NUMERICS, "method.grad_cam", 2)
    assert Call(call=path).identity()["version"] == 2
    smooth = Call(call="efface.methods.smooth.smooth_grad", kwargs={"base": path, "samples": 3})
    assert smooth.identity() == {
        "call": "method.smooth_grad",
        "version": 1,
        "kwargs": {"samples": 3},
        "nested": {"base": {"call": "method.grad_cam", "version": 2, "kwargs": {}}},
    }


def test_identity_holds_the_version_that_a_users_function_or_class_carries(beside):
    source = "def f():\n    return 1\n\n\nclass F:\n    pass\n"
    name = beside(source)
    assert "version" not in Call(call=f"{name}.f").identity()
    beside(source + "\n\nf.version = 2\nF.version = 3\n", name)
    assert [Call(call=f"{name}.{each}").identity()["version"] for each in ("f", "F")] == [2, 3]


def test_code_that_uses_efface_without_a_word_holds_all_declared_versions(monkeypatch, beside):
    monkeypatch.setitem(NUMERICS, "explain", 3)
    assert Call(call="efface.methods.nested.FittedInner").identity()["numerics"] == raised()
    assert raised()["explain"] == 3
    alone, using = beside("def f():\n    return 1\n"), beside("import efface.base.draws\n\n\ndef f():\n    return 1\n")
    assert "numerics" not in Call(call=f"{alone}.f").identity()
    assert Call(call=f"{using}.f").identity()["numerics"] == raised()


# Calls within calls

OUTER = """
from collections.abc import Callable

from torch import nn

from efface.base.types import Method


def outer(
    model, images, targets, *, base: Method, other: Method | None = None, network: Callable[[], nn.Module] = nn.Identity
):
    return base(model, images, targets, seeds=5, colour="red"), other, network()


def inner(model, images, targets, *, seeds, factor: int = 1):
    return seeds * factor


def build(*, width: int = 2):
    return width


class Made:
    def __call__(self, model, images, targets):
        return images


class Learning(Made):
    def __init__(self, *, factor: int = 1):
        self.factor = factor

    def fit(self, model, data, *, seed, max_batch):
        self.learnt = {}


class Short:
    def __call__(self, model):
        return model


class Wrapper:
    def __init__(self, *, base: Method):
        self.base = base

    def __call__(self, model, images, targets):
        return self.base(model, images, targets)
"""


def outer(beside, **kwargs):
    name = beside(OUTER)
    return name, Call(call=f"{name}.outer", kwargs={each: _in(name, value) for each, value in kwargs.items()})


def _in(name, value):
    return value | {"call": f"{name}.{value['call']}"} if isinstance(value, dict) else f"{name}.{value}"


def test_a_setting_that_takes_a_method_is_called_with_what_it_names(beside):
    _, made = outer(beside, base={"call": "inner", "kwargs": {"factor": 3}}, network="build")
    made.check(("model", "images", "targets"))
    assert made(None, None, None) == (15, None, 2)
    _, made = outer(beside, base="inner", other="inner", network={"call": "build", "kwargs": {"width": 7}})
    value, other, width = made(None, None, None)
    assert (value, width) == (5, 7)
    assert other(None, None, None, seeds=2) == 2


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"base": "innre"}, "base {name} innre inner"),
        (
            {"base": {"call": "inner", "kwargs": {"facto": 3}}},
            "base {name}.inner facto",
        ),
        ({"base": {"call": "inner", "kwargs": {"factor": 1.5}}}, "base factor 1.5"),
        ({"base": {"call": "inner", "kwarg": {}}}, "dotted path call: kwargs:"),
        ({"base": {"call": "Learning", "kwargs": {"facto": 1}}}, "base {name}.Learning facto"),
        ({"base": {"call": "Learning", "kwargs": {"factor": 1.5}}}, "base factor 1.5"),
        ({"base": "Short"}, "base {name}.Short (model, images, targets)"),
        ({"base": "build"}, "base {name}.build (model, images, targets)"),
        ({"base": "inner", "network": "inner"}, "network {name}.inner"),
    ],
)
def test_a_wrong_call_within_a_call_says_which(beside, kwargs, said):
    name, made = outer(beside, **kwargs)
    with pytest.raises(ValueError) as error:
        made.check(("model", "images", "targets"))
    assert names(str(error.value), said.replace("{name}", name))


def test_a_method_that_is_a_class_is_made_with_its_settings(beside):
    name, made = outer(beside, base={"call": "Learning", "kwargs": {"factor": 3}}, network="build", other="Made")
    made.check(("model", "images", "targets"))
    assert made.learns
    found = made.settings()
    assert (type(found["base"]).__name__, found["base"].factor) == ("Learning", 3)
    assert type(found["other"]).__name__ == "Made"
    assert found["network"] == Call(call=f"{name}.build")
    assert not Call(call=f"{name}.outer", kwargs={"base": f"{name}.Made"}).learns
    deep = Call(call=f"{name}.outer", kwargs={"base": made.model_dump(), "network": f"{name}.build"})
    assert deep.learns


def test_a_class_without_fit_around_one_that_learns_is_refused(beside):
    name = beside(OUTER)
    Call(call=f"{name}.Wrapper", kwargs={"base": f"{name}.Made"}).check(())
    with pytest.raises(ValueError, match=r"base.*Learning"):
        Call(call=f"{name}.Wrapper", kwargs={"base": f"{name}.Learning"}).check(())


def test_a_function_may_check_its_settings_itself(beside):
    name = beside("""
        def f(*, word="a"):
            return word


        def check_f(*, word="a"):
            if word not in ("a", "b"):
                raise ValueError(f"word is {word!r}; expected a or b")
        """)
    Call(call=f"{name}.f", kwargs={"word": "b"}).check(())
    Call(call=f"{name}.f").check(())
    with pytest.raises(ValueError, match=words("word c")):
        Call(call=f"{name}.f", kwargs={"word": "c"}).check(())


def test_identity_follows_the_call_within_and_files_that_settings_name(beside, tmp_path):
    name, made = outer(beside, base={"call": "inner", "kwargs": {"factor": 3}})
    _, other = name, Call(call=made.call, kwargs={"base": {"call": f"{name}.inner", "kwargs": {"factor": 4}}})
    assert made.identity() != other.identity()
    assert made.identity()["nested"]["base"]["source"]
    file = tmp_path / "weights.pt"
    file.write_bytes(b"one")
    named = Call(call=f"{name}.build", kwargs={"width": str(file)})
    before = named.identity()
    assert named.identity() == before
    file.write_bytes(b"another")
    assert named.identity() != before
