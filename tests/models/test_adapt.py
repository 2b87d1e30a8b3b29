"""Networks from elsewhere take images in [0, 1], return logits, and keep their author's names."""

import copy
import pickle
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from efface.methods.backprop import guided_backprop
from efface.methods.calling import MethodCall, attribute
from efface.methods.cam import grad_cam
from efface.methods.fullgrad import full_grad
from efface.methods.gradient import gradient
from efface.models.adapt import Adaptation, adapted, read_logits
from efface.models.answers import check_answers, takes_raw_values
from efface.models.around import normalised
from efface.models.layers import find_layer
from efface.models.normalise import Normalise
from efface.models.small import mlp
from efface.models.torchvision import IMAGENET_MEAN, IMAGENET_STD, load
from efface.models.weights import load_weights, read_weights
from efface.plug.call import Call
from small.messages import names, words

SHAPE = (1, 8, 8)


class Net(nn.Module):
    """A small network whose answer goes through `form`."""

    def __init__(self, form=lambda logits: logits, classes=4, norm=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.norm = norm or nn.BatchNorm2d(4)
            self.relu = nn.ReLU()
            self.fc = nn.Linear(4 * 64, classes)
        self.form = form

    def forward(self, x):
        return self.form(self.fc(self.relu(self.norm(self.conv(x))).flatten(1)))


def images(n=3):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def adapt(network, **keys):
    return adapted(network, Adaptation(**keys), SHAPE)[0].eval()


FORMS = {
    "tuple": lambda z: (z, z.mean()),
    "list": lambda z: [z],
    "dict": lambda z: OrderedDict(features=z * 2, logits=z),
    "segmentation": lambda z: {"out": z, "aux": z + 1},
    "only": lambda z: {"prediction": z, "loss": None},
    "object": lambda z: SimpleNamespace(logits=z, hidden_states=()),
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_every_usual_answer(form):
    network, changes = adapted(Net(FORMS[form]), Adaptation(), SHAPE)
    assert torch.equal(network.eval()(images()), Net().eval()(images()))
    assert len(changes) == 1
    assert "as its logits" in changes[0]


@pytest.mark.parametrize("answer", [lambda z: {"a": z, "b": z}, lambda z: None, lambda z: "yes", lambda z: ()])
def test_an_answer_without_logits_is_refused(answer):
    with pytest.raises(ValueError, match="no logits are found"):
        adapt(Net(answer))


@pytest.mark.parametrize("form", [lambda z: (z[:, :2] * 2, z), lambda z: {"features": z * 2, "out": z[:, :3], "y": z}])
def test_features_before_the_logits_are_not_taken_for_them(form):
    with pytest.raises(ValueError, match=words("4 classes wrap")):
        adapted(Net(form), Adaptation(), SHAPE, classes=4)
    adapted(Net(form), Adaptation(), SHAPE, classes=7)  # no entry fits, so the study will be told of the classes


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning", "ignore:torch.quantize:UserWarning")
def test_layers_of_eight_bits_are_refused_by_name():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    small = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, torch.qint8)
    with pytest.raises(ValueError, match=words("1 3 8 bits float32")):
        adapt(small)


def test_an_exported_program_is_refused_with_the_remedy():
    program = torch.export.export(Net().eval(), (images(1),)).module()
    with pytest.raises(ValueError, match=words("torch.export hand network itself")):
        adapt(program)


def test_a_forward_that_is_compiled_in_the_network_is_taken_back():
    class Compiled(Net):
        def __init__(self):
            super().__init__()
            self.forward = torch.compile(self.forward, backend="eager")

    network, changes = adapted(Compiled().eval(), Adaptation(), SHAPE)
    assert "forward" not in vars(network)
    assert any("torch.compile" in each for each in changes)
    assert torch.equal(network(images()), Net().eval()(images()))


def test_a_network_that_returns_logits_is_not_touched():
    network = Net()
    assert adapted(network, Adaptation(), SHAPE) == (network, [])
    assert type(network) is Net
    assert network.training


@pytest.mark.parametrize("flat", [False, True])
def test_softmax_of_one_logit_is_its_sigmoid(flat):
    form = (lambda z: z[:, 0]) if flat else (lambda z: z)
    plain, network = Net(form, classes=1).eval(), adapt(Net(form, classes=1), outputs="binary")
    logits = network(images())
    z = plain(images()).reshape(-1)
    torch.testing.assert_close(logits.softmax(1)[:, 1], z.sigmoid())
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], z)
    torch.testing.assert_close(logits.sum(1), torch.zeros(3))


@pytest.mark.parametrize("flat", [False, True])
def test_softmax_of_one_probability_gives_it_back(flat):
    form = (lambda z: z.sigmoid()[:, 0]) if flat else torch.sigmoid
    logits = adapt(Net(form, classes=1), outputs="probabilities")(images())
    torch.testing.assert_close(logits.softmax(1)[:, 1], Net(form, classes=1).eval()(images()).reshape(-1))


def test_probabilities_become_their_logarithms_of_at_least_1e_12():
    logits = adapt(Net(lambda z: z.softmax(1)), outputs="probabilities")(images())
    torch.testing.assert_close(logits, Net().eval()(images()).log_softmax(1))
    assert read_logits(torch.tensor([[1.0, 0.0]]), "probabilities").tolist()[0][1] == pytest.approx(-27.631, abs=1e-3)


def test_a_normalisation_of_the_study_keeps_all_names():
    own = torchvision.models.resnet18(num_classes=3).eval()
    names, state = [name for name, _ in own.named_modules()], own.state_dict()
    network, _ = adapted(copy.deepcopy(own), Adaptation(mean=IMAGENET_MEAN, std=IMAGENET_STD), (3, 32, 32))
    batch = torch.rand(2, 3, 32, 32)
    by_hand = (batch - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    assert torch.equal(network.eval()(batch), own(by_hand))
    assert [name for name, _ in network.named_modules() if name != "normalise"] == names
    assert next(name for name, _ in network.named_children()) == "normalise"
    assert network.state_dict().keys() == state.keys()
    assert network.layer4[0].conv1.weight.equal(own.layer4[0].conv1.weight)
    assert isinstance(network, torchvision.models.ResNet)
    assert type(network).__name__ == "ResNet"


def test_networks_of_torchvision_have_torchvisions_names():
    network, plain = load("resnet18", num_classes=3), torchvision.models.resnet18(num_classes=3)
    load_weights(network, plain.state_dict(), "torchvision")
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert network.layer4 is find_layer(network, "layer4")
    assert find_layer(network, "network.layer4") is network.layer4  # the name in efface 0.1


def test_two_normalisations_are_refused():
    with pytest.raises(ValueError, match=r"normalisation.*drop one"):
        adapted(load("squeezenet1_0", num_classes=3), Adaptation(mean=IMAGENET_MEAN, std=IMAGENET_STD), (3, 32, 32))
    with pytest.raises(ValueError, match="both or neither"):
        adapt(Net(), mean=(0.5,))
    with pytest.raises(ValueError, match=r"3 numbers.*1 channels"):
        adapt(Net(), mean=(0.5,) * 3, std=(0.5,) * 3)


def pickled(network):
    return pickle.loads(pickle.dumps(network))  # noqa: S301  of this test alone


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_an_adapted_network_can_be_copied_and_pickled(copied):
    torch.manual_seed(0)
    network, _ = adapted(
        torchvision.models.squeezenet1_0(num_classes=3), Adaptation(mean=(0.5,) * 3, std=(0.5,) * 3), (3, 64, 64)
    )
    batch = torch.rand(2, 3, 64, 64)
    again = copied(network.eval())
    assert torch.equal(again(batch), network(batch))
    again.features[0].weight.data.zero_()
    assert not torch.equal(again(batch), network(batch))


def test_parts_of_an_adapted_sequence_are_not_normalised_again():
    sequence = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    network, _ = adapted(sequence, Adaptation(mean=(0.5,), std=(0.5,)), SHAPE)
    assert torch.equal(network(images()), network[-1](((images() - 0.5) / 0.5).flatten(1)))


def test_a_network_that_loops_over_its_children_is_refused_a_normalisation():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.linear = nn.Flatten(), nn.Linear(64, 3)

        def forward(self, x):
            for module in self.children():
                x = module(x)
            return x

    with pytest.raises(ValueError, match="children in a loop"):
        adapt(Loop(), mean=(0.4,), std=(0.5,))


class ByNumber(nn.Sequential):
    def forward(self, x):
        return self[-1](self[1](self[0](x)))


class InALoop(nn.Sequential):
    def forward(self, x):
        for i in range(len(self)):
            x = self[i](x)
        return x


@pytest.mark.parametrize("kind", [nn.Sequential, ByNumber, InALoop])
def test_a_normalised_sequence_keeps_the_numbers_of_its_layers(kind):
    network = kind(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)).eval()
    layers, names = list(network), list(network.state_dict())
    expected = network((images() - 0.4) / 0.5)
    found = adapt(network, mean=(0.4,), std=(0.5,))
    for each in (found, copy.deepcopy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301  written here
        torch.testing.assert_close(each(images()), expected)
        assert [type(layer) for layer in each] == [type(layer) for layer in layers]
        assert list(each.state_dict()) == names
    assert list(found) == layers
    torch.testing.assert_close(found.double()(images().double()).float(), expected)


def test_a_network_whose_forward_was_replaced_is_put_into_another():
    network = Net()
    network.forward = lambda x: (Net.forward(network, x),)
    assert torch.equal(adapt(network)(images()), Net().eval()(images()))


@pytest.mark.parametrize("backend", ["compile", "in place", "parallel", "inside"])
def test_compiled_and_parallel_networks_are_taken_out_of_their_wrapper(backend):
    network = Net()
    if backend == "compile":
        wrapped = torch.compile(network, backend="eager")
    elif backend == "parallel":
        wrapped = nn.DataParallel(network)
    elif backend == "in place":
        wrapped = network
        wrapped.compile(backend="eager")
    else:
        wrapped = network
        wrapped.conv = torch.compile(wrapped.conv, backend="eager")
    found, changes = adapted(wrapped, Adaptation(), SHAPE)
    assert found is network
    assert type(found.conv) is nn.Conv2d
    assert vars(found).get("_compiled_call_impl") is None
    assert len(changes) == 1


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(kind):
    network, changes = adapted(Net().to(kind), Adaptation(), SHAPE)
    assert {each.dtype for each in network.parameters()} == {torch.float32}
    expected = Net().to(kind).float().eval()(images())
    assert torch.equal(network.eval()(images()), expected)
    assert "now float32" in changes[0]


def test_only_modules_are_networks():
    with pytest.raises(ValueError, match=r"dict.*Module"):
        adapt({"a": 1})


def test_answers_that_are_no_logits_are_refused():
    with pytest.raises(ValueError, match="outputs: binary"):
        check_answers(Net(classes=1).eval(), images())
    with pytest.raises(ValueError, match="probabilities"):
        check_answers(Net(lambda z: z.softmax(1)).eval(), images())
    with pytest.raises(ValueError, match="squeeze"):
        check_answers(Net(lambda z: z.squeeze()).eval(), images())
    with pytest.raises(ValueError, match="NaN"):
        check_answers(Net(lambda z: z * torch.nan).eval(), images())
    with pytest.raises(ValueError, match=r"outputs.*binary.*drop"):
        check_answers(adapt(Net(), outputs="binary"), images(), "binary")
    with pytest.raises(ValueError, match=r"outputs.*probabilities"):
        check_answers(adapt(Net(), outputs="probabilities"), images(), "probabilities")


def test_what_may_be_probabilities_is_warned_of_until_the_study_says_what_it_is():
    network = Net(torch.sigmoid).eval()
    assert "outputs: logits" in check_answers(network, images())[1][0]
    by_chance = Net(lambda z: 0.5 + 1e-3 * z).eval()
    assert check_answers(by_chance, images())[1] == []
    assert check_answers(adapt(Net(lambda z: 0.5 + 1e-3 * z, classes=1), outputs="binary"), images(), "binary")[1] == []
    assert check_answers(network, images(), "logits")[1] == []
    assert check_answers(Net(lambda z: z.log_softmax(1)).eval(), images())[1] == []
    binary = adapt(Net(torch.sigmoid, classes=1), outputs="binary")
    assert "outputs: probabilities" in check_answers(binary, images(), "binary")[1][0]


class Dropped(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


def test_modules_that_answer_anew_each_time_are_named():
    with pytest.raises(ValueError, match=r"different logits for the same images.*norm \(Dropped\)"):
        check_answers(Net(norm=Dropped()).eval(), images())
    with pytest.raises(ValueError, match="its own forward"):
        check_answers(Net(lambda z: F.dropout(z, 0.5)).eval(), images())


class Rare(nn.Module):
    """Drops whole rows, but rarely; `train` leaves it on, as it leaves modules of a foreign library on."""

    def __init__(self, share, training):
        super().__init__()
        self.share, self.on = share, training

    def train(self, mode=True):  # noqa: FBT002  as torch has it
        return super().train(mode or self.on)

    def forward(self, x):
        return F.dropout2d(x, self.share, training=True)


@pytest.mark.parametrize("training", [False, True])
def test_rare_draws_are_found_by_the_numbers_that_they_draw(training):
    with pytest.raises(ValueError, match=r"different logits.*norm"):
        check_answers(Net(norm=Rare(0.05, training)).eval(), images())
    _, warnings = check_answers(Net(norm=Rare(1e-9, training)).eval(), images())
    assert len(warnings) == 1
    assert names(warnings[0], "norm training" if training else "random numbers")


@pytest.mark.filterwarnings("ignore:std:UserWarning")
def test_an_answer_that_is_nan_for_one_image_is_a_difference():
    with pytest.raises(ValueError, match="other images"):
        check_answers(Net(lambda z: z / (z.std(0) + 1e-5)).eval(), images())


def test_modules_that_look_at_the_whole_batch_are_named():
    with pytest.raises(ValueError, match=r"other images.*norm \(BatchNorm2d\)"):
        check_answers(Net(norm=nn.BatchNorm2d(4, track_running_stats=False)).eval(), images())


def test_rounding_is_no_difference():
    network = Net().eval()
    assert torch.equal(check_answers(network, images())[0], network(images()))

    class Low(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net().bfloat16()

        def forward(self, x):
            return self.net(x.bfloat16()).float()

    assert check_answers(Low().eval(), images())[1] == []


def hooks_nothing(model, images, targets):
    aside = nn.Linear(2, 2)
    aside.register_forward_hook(lambda *_: None)
    return gradient(model, images, targets)


def hooks_something(model, images, targets):
    model.conv.register_forward_hook(lambda *_: None)
    nn.Linear(2, 2).register_forward_hook(lambda *_: None)
    return gradient(model, images, targets)


def call(function, model):
    method = MethodCall("mine", Call(call=f"{function.__module__}.{function.__name__}"))
    seeds = torch.arange(3)
    return attribute(method, model, images(), torch.tensor([0, 1, 2]), seeds=seeds, max_batch=8)["mine"]


def test_hooks_that_never_run_are_an_error():
    register = nn.Module.register_forward_hook
    with pytest.raises(ValueError, match=r"mine.*1 hooks \(on Linear\).*none"):
        call(hooks_nothing, Net())
    maps = gradient(Net().eval(), images(), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(call(hooks_something, Net()), maps)
    assert nn.Module.register_forward_hook is register


def write(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"net": state, "acc": 93.2},
        lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"model_state_dict": state, "loss": 0.3},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3},
        lambda state: {f"backbone.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(3)},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {"checkpoint": {"state_dict": state, "epoch": 3}, "args": {"lr": 0.1}},
        lambda state: {"ema": {"module": {f"model.module.{key}": value for key, value in state.items()}}},
        lambda state: {"net": {"x": state}, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    ],
)
def test_weights_are_found_in_checkpoints_of_every_usual_form(wrap, tmp_path):
    source, network = Net(), Net()
    for value in source.state_dict().values():
        value.add_(1)
    path = write(tmp_path / "w.pth", wrap(source.state_dict()))
    load_weights(network, read_weights(path), path)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("own", ["model", "module", "network", "backbone"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "module.model.", "lit."])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_network_whose_own_names_look_like_a_wrapper_takes_its_weights(own, prefix, depth, tmp_path):
    def network():
        found = Net()
        for _ in range(depth):
            outer = nn.Module()
            outer.add_module(own, found)
            found = outer
        return found

    source, other = network(), network()
    path = write(tmp_path / "w.pth", {prefix + key: value + 1 for key, value in source.state_dict().items()})
    load_weights(other, read_weights(path), path)
    assert all(torch.equal(value, source.state_dict()[key] + 1) for key, value in other.state_dict().items())


def test_several_state_dicts_need_a_choice(tmp_path):
    state = Net().state_dict()
    path = write(tmp_path / "w.pth", {"state_dict": state, "state_dict_ema": {k: v * 2 for k, v in state.items()}})
    with pytest.raises(ValueError, match=r"2 state dicts.*#state_dict_ema"):
        read_weights(path)
    assert torch.equal(read_weights(f"{path}#state_dict_ema")["fc.bias"], state["fc.bias"] * 2)


def test_files_that_hold_no_weights_say_what_they_hold(tmp_path):
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    (tmp_path / "page.pth").write_text("<!doctype html><html>rate limit</html>")
    write(tmp_path / "module.pth", nn.Linear(2, 2))
    write(tmp_path / "other.pth", {"epoch": 3, "lr": 0.1})
    write(tmp_path / "mixed.pth", {"model": {"fc.weight": torch.ones(2), "rate": 0.1}, "epoch": 3})
    write(tmp_path / "optimizer.pth", {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}})
    for name, said in {
        "pointer": "git lfs",
        "page": "web page",
        "module": "Python object",
        "other": "epoch",
        "mixed": "model .with 'rate', a float among tensors.",
        "optimizer": "its keys are optimizer",
    }.items():
        with pytest.raises(ValueError, match=said):
            read_weights(tmp_path / f"{name}.pth")


class Inside(nn.Module):
    """Normalises in its own forward, before its first layer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x - 0.4) / 0.2)


def transformer() -> nn.Module:
    """It has a weight of its own, the class token, beside its layers."""
    network = torchvision.models.VisionTransformer(8, 4, 1, 2, 8, 8, num_classes=2)
    network.conv_proj = nn.Conv2d(1, 8, 4, 4)
    return network


@pytest.mark.parametrize(
    ("network", "raw"),
    [
        (normalised(transformer(), Normalise([0.4], [0.2])), False),
        (transformer(), True),
        (Net(), True),
        (Inside(Net()), False),
        (normalised(Net(), Normalise([0.4], [0.2])), False),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), True),
        (nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), False),  # another shape: not judged
        (nn.Flatten(), False),
    ],
)
def test_a_network_that_gets_the_images_as_they_are_is_told_from_one_that_normalises_them(network, raw):
    assert takes_raw_values(network.eval(), images()) == raw


def test_a_network_with_a_part_of_that_name_keeps_its_names():
    network = mlp(in_features=64, widths=(), num_classes=2)
    names = set(network.state_dict())
    expected = network.eval()((images() - 0.4) / 0.2)
    found = adapted(network, Adaptation(mean=(0.4,), std=(0.2,)), SHAPE)[0].eval()
    torch.testing.assert_close(found(images()), expected)
    assert set(found.state_dict()) == names
    torch.testing.assert_close(copy.deepcopy(found)(images()), expected)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x.sub_(0.3).div_(0.3))


def test_a_network_that_changes_its_input_is_refused():
    with pytest.raises(ValueError, match=r"input in place.*\(x - mean\)"):
        check_answers(InPlace().eval(), images())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda network: torch.jit.trace(network, torch.rand(2, 1, 8, 8))])
def test_a_scripted_network_is_used_and_methods_that_need_its_layers_refuse(make):
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    network, _ = adapted(make(plain), Adaptation(), SHAPE)
    torch.testing.assert_close(call(gradient, network), gradient(plain, images(), torch.tensor([0, 1, 2])))
    for function in (grad_cam, full_grad, guided_backprop):
        with pytest.raises(ValueError, match=r"attribution_methods\.mine"):
            call(function, network)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_logits_in_half_precision_become_float32(kind):
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x).to(kind)

    network, changes = adapted(Cast(), Adaptation(), SHAPE)
    assert network(images()).dtype == torch.float32
    assert any(str(kind).removeprefix("torch.") in each for each in changes)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "around",
    [lambda x: SimpleNamespace(logits=x), lambda x: {"logits": x, "more": x.float()}, lambda x: (x, x.float())],
)
def test_logits_in_half_precision_are_seen_in_any_output(kind, around):
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return around(self.net(x).to(kind))

    network, changes = adapted(Cast(), Adaptation(), SHAPE)
    assert network(images()).dtype == torch.float32
    assert any(str(kind).removeprefix("torch.") in each and "float32" in each for each in changes)
