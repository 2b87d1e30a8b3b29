"""A network whose last layer is new and random is trained before it is explained, or refused."""

import pytest

from small.messages import names
from small.studies import MODULES, efface, write_study

NEW = (
    MODULES["net"]
    + """

def renewed():
    from efface.models.loaded import state_new_layers
    made = network()
    state_new_layers(made, ["4.weight", "4.bias"])
    return made
"""
)


@pytest.mark.parametrize(
    "fit", [None, {"epochs": 1, "optimizer": {"call": "torch.optim.Adam", "kwargs": {"lr": 1e-2}}}]
)
def test_it_is_refused_only_without_a_training(tmp_path, fit):
    write_study(tmp_path, {"net": NEW}, model={"call": "net.renewed"}, fit=fit, metrics=["morf"], fractions=[0.5])
    done = efface(tmp_path, "all", "study.yml")
    assert done.code == (1 if fit is None else 0), done.err
    if fit is None:
        assert names(done.err, "model: 4 new random weights fit num_classes")
