"""Keys of a small study: what a rename must leave as it is."""

import tempfile

from efface.stages.run.map_files import learnt_path, provenance
from efface.stages.run.plan import make_plan
from efface.stages.run.run import Run
from efface.stages.work.sampling import samples_path
from efface.store.keys import key
from efface.study.study import Study
from efface.training.generate import Sampling

STUDY = {
    "data": {"call": "patches", "kwargs": {"n_train": 8, "n_test": 5, "size": 16}},
    "model": {"call": "resnet8", "kwargs": {"num_classes": 4}},
    "refit": {
        "epochs": 1,
        "batch_size": 4,
        "crop": 1,
        "optimizer": {"call": "torch.optim.SGD", "kwargs": {"lr": 0.1}},
        "attack": {"call": "pgd", "kwargs": {"norm": "l2", "eps": 0.1, "steps": 2}},
        "augment": ["colour_jitter"],
        "regularizers": [{"call": "gradient_norm", "weight": 0.1}],
    },
    "attribution_methods": [
        {"name": "rise", "method": "rise"},
        {"name": "cam", "method": "smooth_grad", "kwargs": {"base": {"call": "grad_cam"}}},
        {"name": "pattern", "method": "PatternAttribution"},
    ],
    "imputer": {"call": "blur"},
    "unit": {"call": "patch", "kwargs": {"size": 4}},
    "post": ["absolute", "channel_sum"],
    "metrics": ["roar", "morf", "pointing_game", "infidelity", "data_randomisation", "complexity"],
    "fractions": [0.3],
    "repeats": 1,
}


def keys() -> dict[str, list[str]]:
    """Every key of the study, by what it is of."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Study.model_validate(STUDY | {"out": folder}))
        plan = make_plan(run)
        assert plan.problems == (), plan.problems
        learnt = [path.name for each in run.entries if (path := learnt_path(run, each))]
        splits = [(each, name, split) for each in run.entries for name in each.gives for split in ("train", "test")]
        return {
            "results": [task.key for task in plan.tasks],
            "maps": [key(provenance(run, *each)) for each in splits],
            "learnt": learnt,
            "network": [run.first.key],
            "samples": [samples_path(run, Sampling(count=4)).name],
        }
