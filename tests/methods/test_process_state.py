"""A method leaves the network and the process as they were, whatever it does, and cannot end the run."""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as dispatch_modes

from efface.execute.attempt import Attempt, Failure
from efface.methods.calling import MethodCall, attribute
from efface.methods.gradient import gradient
from efface.plug.call import Call
from efface.stages.run.weights_kept import weights_kept


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(192, 4)
        )
    made.settings, made.parts = {"scale": 1.0}, [1, 2]
    return made.eval()


def images():
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def maps_of(model, does, **settings):
    BODY.clear()
    BODY.append(does)
    method = MethodCall("mine", Call(call=f"{__name__}.bad"), **settings)
    return attribute(method, model, images(), torch.tensor([0, 1]), seeds=torch.arange(2), max_batch=4)["mine"]


BODY = []


def bad(model, images, targets):
    BODY[0](model, images, targets)
    return gradient(model, images, targets)


def state(model):
    return {
        "modules": [(name, id(each), type(each)) for name, each in model.named_modules()],
        "own forward": ["forward" in vars(each) for each in model.modules()],
        "tensors": [id(each) for each in (*model.parameters(), *model.buffers())],
        "modes": [each.training for each in model.modules()],
        "flags": [each.requires_grad for each in model.parameters()],
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "folder": Path.cwd(),
        "handlers": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "alarm": signal.getitimer(signal.ITIMER_REAL),
        "hooks": {name: str(each) for name, each in vars(torch_modules).items() if "_global_" in name},
        "attributes": [{name: id(value) for name, value in vars(each).items()} for each in model.modules()],
        "settings": repr([model.settings, model.parts]),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), kept_by_autocast()),
        "device": (torch.get_default_device(), torch.zeros(1).device),
        "torch modes": (len(function_modes()), len(dispatch_modes())),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": torch.backends.cudnn.enabled,
        "errors": np.geterr(),
        "depth": sys.getrecursionlimit(),
        "exit": os._exit,
        "stderr": os.fstat(2).st_ino,
        "streams": (sys.stdout, sys.stderr),
        "forwards": [each.forward for each in (nn.Conv2d, nn.LeakyReLU, nn.Sequential, nn.Module)],
        "functions": (torch.Tensor.abs, torch.relu, nn.functional.relu, torch.Tensor.__bool__, nn.Module.modules),
        "random": torch.random.get_rng_state().tolist(),
    }


def kept_by_autocast():
    """Whether autocast still gives the old weights after a change, as it does below an autocast that was left open."""
    found, ones = [], torch.ones(1, 2)
    with torch.random.fork_rng():
        layer = nn.Linear(2, 2, bias=False)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(layer(ones))
        with torch.no_grad():
            layer.weight.add_(1)
    return torch.equal(*found)


ENTERED = []


def saved_as_zero():
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x * 0)
    hooks.__enter__()
    return hooks


class Doubling(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        return found * 2 if func is torch.conv2d else found


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


MESSES = {
    "replaces a module": lambda model, *_: setattr(model, "0", nn.Sequential(model[0], nn.Tanh())),
    "adds a module": lambda model, *_: model.add_module("more", nn.ReLU()),
    "patches forward": lambda model, *_: setattr(model, "forward", lambda x: -nn.Sequential.forward(model, x)),
    "another class": lambda model, *_: setattr(model[2], "__class__", nn.Tanh),
    "new parameter": lambda model, *_: setattr(model[4], "weight", nn.Parameter(model[4].weight * 2)),
    "train mode": lambda model, *_: model[2].train(),
    "flags": lambda model, *_: model.requires_grad_(requires_grad=False),
    "global hook": lambda *_: torch_modules.register_module_forward_hook(lambda _m, _i, output: output * 1.0),
    "gradients off": lambda *_: torch.set_grad_enabled(False),
    "default dtype": lambda *_: torch.set_default_dtype(torch.float64),
    "a number of a module": lambda model, *_: setattr(model[2], "negative_slope", -3.0),
    "a setting of a layer": lambda model, *_: setattr(model[0], "padding", (0, 0)),
    "a new attribute": lambda model, *_: setattr(model[0], "seen", [1, 2]),
    "no attribute": lambda model, *_: delattr(model[2], "negative_slope"),
    "an item of a dict": lambda model, *_: model.settings.update(scale=-2.0),
    "an item of a list": lambda model, *_: model.parts.clear(),
    "autocast": lambda *_: torch.autocast("cpu", torch.bfloat16).__enter__(),
    "hooks of saved tensors": lambda *_: ENTERED.append(saved_as_zero()),
    "a mode of functions": lambda *_: Doubling().__enter__(),
    "a mode of dispatch": lambda *_: Dispatching().__enter__(),
    "default device": lambda *_: torch.set_default_device("meta"),
    "hook on parameters": lambda *_: torch_modules.register_module_parameter_registration_hook(lambda *_: None),
    "hook always called": lambda *_: torch_modules.register_module_forward_hook(lambda *_: None, always_call=True),
    "old backward hook": lambda *_: torch_modules.register_module_backward_hook(lambda *_: None),
    "deterministic": lambda *_: torch.use_deterministic_algorithms(mode=True),
    "precision": lambda *_: torch.set_float32_matmul_precision("medium"),
    "cudnn": lambda *_: setattr(torch.backends.cudnn, "enabled", False),
    "threads": lambda *_: torch.set_num_threads(3),
    "errors of numpy": lambda *_: np.seterr(all="raise"),
    "folder": lambda *_: os.chdir("/"),
    "handlers": lambda *_: [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)],
    "alarm": lambda *_: signal.setitimer(signal.ITIMER_REAL, 30),
    "forward of a class": lambda *_: setattr(nn.LeakyReLU, "forward", lambda _, x: x),
    "function of a base class": lambda *_: setattr(nn.Module, "modules", lambda _: iter(())),
    "no forward of a class": lambda *_: delattr(nn.LeakyReLU, "forward"),
    "function of tensors": lambda *_: setattr(torch.Tensor, "abs", lambda x: x),
    "function of torch": lambda *_: setattr(torch, "relu", lambda x: x),
    "function of layers": lambda *_: setattr(nn.functional, "relu", lambda x, **_: x),
    "no stdout": lambda *_: setattr(sys, "stdout", None),
    "closes stderr": lambda *_: os.close(2),
    "depth of recursion": lambda *_: sys.setrecursionlimit(sys.getrecursionlimit() + 7),
    "seeds": lambda *_: torch.manual_seed(time.time_ns()),
    "images": lambda _, images, __: images.zero_(),
    "targets": lambda _, __, targets: targets.fill_(3),
}


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")
@pytest.mark.parametrize("mess", MESSES)
def test_everything_is_as_before(mess):
    model, expected = network(), maps_of(network(), lambda *_: None)
    before = state(model)
    with contextlib.suppress(
        RuntimeError, TypeError, ValueError, AttributeError, FloatingPointError
    ):  # it may break the method itself
        maps_of(model, MESSES[mess])
    assert state(model) == before
    assert torch.equal(maps_of(model, lambda *_: None), expected)


def test_an_exit_of_the_process_is_an_error_of_the_method():
    with pytest.raises(Exception, match=r"os._exit\(0\)"):
        maps_of(network(), lambda *_: os._exit(0))


def test_a_thread_that_a_method_leaves_does_not_keep_the_process():
    ready = threading.Event()
    left = []

    def leave(*_):
        left.append(threading.Thread(target=ready.wait))
        left[0].start()

    maps_of(network(), leave)
    assert left[0].daemon
    assert not threading.Thread().daemon
    ready.set()
    left[0].join()


class TextlessError(Exception):
    def __str__(self):
        return str(1 / 0)


def test_an_error_may_have_no_text():
    def work(_):
        raise TextlessError

    assert Attempt(work)(1).message == "TextlessError: it has no text, because its __str__ raises ZeroDivisionError"


@pytest.mark.parametrize("leaves", [SystemExit(0), GeneratorExit("x"), RuntimeError("out of luck")])
def test_whatever_work_raises_is_a_failure(leaves):
    def work(_):
        raise leaves

    found = Attempt(work)(1)
    assert isinstance(found, Failure)
    assert type(leaves).__name__ in found.message


def test_a_stop_by_the_user_is_none():
    def work(_):
        raise KeyboardInterrupt  # without `stoppable` it may be a Ctrl-C

    with pytest.raises(KeyboardInterrupt):
        Attempt(work)(1)


def test_a_call_that_does_not_end_is_stopped():
    def loop(*_):
        while True:
            time.sleep(0.01)

    started = time.monotonic()
    with pytest.raises(ValueError, match=r"mine.*2 images.*0.2 s"):
        maps_of(network(), loop, timeout=0.2)
    assert time.monotonic() - started < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def doubled(model):
    with torch.no_grad():
        model[0].weight.mul_(2)


def trained(model):
    model.train()(images())
    model.eval()


def behind_the_back(model):
    model[4].bias.data += 1  # torch counts no change of `.data`


@pytest.mark.parametrize(
    ("does", "tensor"),
    [(doubled, "0.weight"), (trained, "1.running_mean"), (behind_the_back, "4.bias"), (nn.Module.double, "0.weight")],
)
@pytest.mark.parametrize("raises", [False, True])
def test_a_changed_network_is_given_up_and_its_culprit_named(does, tensor, raises):
    model, given_up = network(), []

    @weights_kept(model, "attribution_methods.mine", lambda: given_up.append(1))
    def call():
        does(model)
        if raises:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError if raises else ValueError, match="out of luck" if raises else tensor):
        call()
    assert given_up == [1]


@pytest.mark.parametrize(("on_trial", "said"), [(True, "would not be kept; work"), (False, "loaded again")])
def test_what_becomes_of_a_changed_network_is_said_as_it_is(on_trial, said):
    model = network()
    with (
        pytest.raises(ValueError, match=f"mine: .* {said}"),
        weights_kept(model, "mine", lambda: None, on_trial=on_trial),
    ):
        doubled(model)


def test_a_network_that_is_the_same_is_kept():
    model, given_up = network(), []
    with weights_kept(model, "mine", lambda: given_up.append(1)):
        model(images())
        doubled(model)
        with torch.no_grad():
            model[0].weight.div_(2)
    assert not given_up
    assert "efface" in sys.modules


def test_a_closed_stream_is_opened_again(tmp_path, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, (tmp_path / name).open("w"))
        maps_of(network(), lambda *_, name=name: getattr(sys, name).close())
        assert not getattr(sys, name).closed
        getattr(sys, name).write("")
