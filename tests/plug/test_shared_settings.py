"""A function with the settings of another: what its signature says, what it receives, and what it refuses."""

import inspect
import pickle
import typing

import pytest

from efface.plug.accepts import accepts
from efface.plug.call import Call
from efface.plug.shared_settings import with_settings_of
from small.messages import words


def paint(images, *, colour: str = "red", layers: int = 2, thin: bool = False) -> list:
    """Paint."""
    return [images, colour, layers, thin]


@with_settings_of(paint, but=("thin",))
def varnish(images, *, coats: int, layers: int = 5, **settings: typing.Any) -> tuple:
    """Varnish."""
    return images, coats, layers, settings


def test_the_signature_lists_its_own_settings_and_then_those_of_the_other():
    assert str(inspect.signature(varnish)) == "(images, *, coats: int, layers: int = 5, colour: str = 'red') -> tuple"
    assert typing.get_type_hints(varnish) == {"coats": int, "layers": int, "colour": str, "return": tuple}


def test_they_stand_behind_a_setting_of_its_own():
    @with_settings_of(paint, but=("thin",), after="coats")
    def varnish(*, coats: int = 1, dry: bool = True, **settings: typing.Any) -> tuple:
        return coats, dry, settings

    assert list(inspect.signature(varnish).parameters) == ["coats", "colour", "layers", "dry"]
    assert varnish(layers=3) == (1, True, {"colour": "red", "layers": 3})
    with pytest.raises(TypeError, match=words("varnish coat coats dry")):
        with_settings_of(paint, after="coat")(varnish.__wrapped__)


def test_it_receives_the_defaults_and_what_a_call_gives():
    assert varnish(1, coats=2) == (1, 2, 5, {"colour": "red"})
    assert varnish(1, coats=2, layers=3, colour="blue") == (1, 2, 3, {"colour": "blue"})


def test_it_keeps_its_name_place_and_text_and_is_pickled_by_its_path():
    assert (varnish.__name__, varnish.__module__, varnish.__doc__) == ("varnish", __name__, "Varnish.")
    assert pickle.loads(pickle.dumps(varnish)) is varnish  # noqa: S301  its own bytes


@pytest.mark.parametrize(
    "given", [{"coats": 1, "thin": True}, {"coats": 1, "colours": "red"}, {"colour": "red"}, {"coats": 1, "images": 2}]
)
def test_other_settings_are_refused_by_its_own_name(given):
    with pytest.raises(TypeError, match=r"^varnish\(\): "):
        varnish(1, **given)


def test_settings_are_no_positional_arguments():
    with pytest.raises(TypeError, match=r"^varnish\(\): too many positional"):
        varnish(1, 2)


def test_a_setting_that_the_other_lacks_is_an_error():
    with pytest.raises(TypeError, match=words("paint brush colour layers thin")):
        with_settings_of(paint, but=("brush",))


def test_a_function_that_cannot_receive_settings_is_an_error():
    with pytest.raises(TypeError, match=r"paint has no \*\*settings"):
        with_settings_of(varnish)(paint)


def test_a_study_is_checked_against_the_settings():
    path = "efface.methods.smooth.var_grad"
    assert accepts(Call(call=path).resolve(), "samples")
    with pytest.raises(ValueError, match="has no setting 'sampels'; did you mean 'samples'"):
        Call(call=path, kwargs={"sampels": 3}).check(("model", "images", "targets"))
    with pytest.raises(ValueError, match="samples is 'many', expected a number"):
        Call(call=path, kwargs={"samples": "many"}).check(("model", "images", "targets"))
