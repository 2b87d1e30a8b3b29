"""Study: one YAML file. It is read safely and checked as a whole before any work.

While the file is read, every dotted path is imported and every setting is bound to its function. One message
therefore lists all problems at once.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from efface.models.adapt import Outputs
from efface.plug import moved
from efface.plug.call import Call, bound
from efface.plug.field import WORDS, Word
from efface.plug.strict import Strict
from efface.study.across import combined, of_settings
from efface.study.claims import ACCURACY, VariantNames, unfounded
from efface.study.cross_checks import disagreements, too_many, unfilled, unheard
from efface.study.mask_controls import with_leaks
from efface.study.metric_entry import MetricEntry
from efface.study.network_entry import PerChannel, SecondNetwork, Tokens
from efface.study.problems import faults
from efface.study.recipes import fill_changed, with_recipes
from efface.study.recommended_metrics import expanded
from efface.study.schema import (
    MOST,
    Claim,
    Decide,
    Fraction,
    ImputerCall,
    MethodEntry,
    MethodName,
    Name,
    Post,
    UnitCall,
    Visualize,
)
from efface.study.yaml_file import InvalidStudyError, load, override, put, reference_form
from efface.training.generate import Sampling
from efface.training.loop import TrainingSettings


def _word(value: object) -> object:
    """Return the words "true" and "false" as text, for YAML reads them as truth values."""
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value


_PROCESSES = "efface.execute.processes"


def _of_processes(value: object) -> object:
    """Add the default executor if the study sets only its settings, such as `executor.kwargs.workers=1`."""
    return {"call": _PROCESSES} | value if isinstance(value, dict) else value


class Study(Strict):
    """The keys of one study file. docs/studies.md explains each key at length.

    out: folder of the run. Every stage reads and writes there.
    data: the images and their classes.
    model: the network that is explained.
    weights: a file with the weights of the network, which is then not trained.
    outputs: what the network returns: logits, binary (one number) or probabilities.
    mean: one number for each channel, which is subtracted from images in [0, 1] before the network.
    std: one number for each channel, by which the images are divided after that.
    tokens: how the tokens of a transformer lie, where the network itself does not say it.
    fit: how the network is trained. Without it, the network is used as it is, and nothing can be retrained.
    refit: how networks are trained again by metrics such as roar; by default as `fit`, without attack and regularizers.
    second_network: a second network, which judges samples or lends its maps.
    explain: the class that a map explains: predicted, or true.
    attribution_methods: the methods that are compared. A study needs a random control to compare with.
    post: functions that change a map before its pixels are ranked, in this order.
    imputer: the fill that takes the place of removed pixels.
    reference: the row that the others are compared with; by default the first random control.
    metrics: what is measured.
    controls: mask measures for each retrained score what the outline of the removed units explains.
    samples: how images of a class are made with the network.
    decide: measure in rounds, and stop comparing two methods when they are told apart.
    visualize: what the stage visualize shows.
    unit: what is ranked and removed as a whole: pixel, feature, token, patches, or groups of your own.
    fractions: the parts of an image that are removed, in [0, 1].
    repeats: trainings for each point of a retrained metric. Fewer than 3 give no verdicts.
    executor: what runs the tasks: processes side by side, serial, or a cluster by ray or slurm.
    threads: threads of torch in each process that works.
    seed: seed of networks, trainings, maps and ties.
    seeds: the whole study once for each of these seeds.
    variants: named sets of changes to this study, each with a network of its own.
    claims: sentences that the results support or not.
    device: auto (a GPU where there is one), cpu, or cuda.
    max_batch: most images in one forward pass. It limits the memory.
    memory_gb: memory for the images of a split in each process. Above it, they are read from a file.
    """

    out: Path
    data: Annotated[Call, Word("data"), bound()]
    model: Annotated[Call, Word("model"), bound()]
    weights: Path | None = None
    outputs: Outputs | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    tokens: Tokens | None = None
    fit: TrainingSettings | None = None
    refit: TrainingSettings | None = None
    second_network: SecondNetwork | None = None
    explain: Annotated[Literal["predicted", "true"], BeforeValidator(_word)] = "predicted"
    attribution_methods: tuple[MethodEntry, ...] = Field(min_length=1)
    post: Post = ()
    imputer: ImputerCall = Call(call="efface.impute.channel_mean")
    reference: MethodName | None = None
    metrics: tuple[MetricEntry, ...] = ()
    controls: Literal["mask"] | None = None
    samples: Sampling = Sampling()
    decide: Decide | None = None
    visualize: Visualize = Visualize()
    unit: UnitCall = "pixel"
    fractions: tuple[Fraction, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    repeats: Annotated[PositiveInt, Field(le=MOST)] = 3
    executor: Annotated[
        Call, Word("executor"), bound("work", "tasks", offered=("progress",)), BeforeValidator(_of_processes)
    ] = Call(call=_PROCESSES)
    threads: PositiveInt | None = None
    seed: NonNegativeInt = 0
    seeds: tuple[NonNegativeInt, ...] = ()
    variants: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    device: str = "auto"
    max_batch: PositiveInt = 256
    memory_gb: Annotated[float, Field(ge=0)] = 2.0

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, value: object) -> object:
        return with_leaks(combined(expanded(with_recipes(value)))) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _agrees(self) -> "Study":
        second = self.second_network.fit if self.second_network is not None else None
        crops = unfilled(self.imputer, {"fit": self.fit, "second_network.fit": second})
        if problems := [*disagreements(self.model_dump()), *crops]:
            raise ValueError("\n".join(problems))
        return self

    def parts(self) -> dict[str, list["Study"]]:
        """Return the runs of this study: for each variant, one study for each seed.

        A study without variants and seeds is its own only run. Each run has its own folder below this study's folder.
        The second network is the same for all variants of a seed, so it is stored only once.
        """
        if not self.variants and not self.seeds:
            return {"": [self]}
        runs: dict[str, list[Study]] = {}
        for name, changes in (self.variants or {"": {}}).items():
            for seed in self.seeds or (None,):
                tree = self.model_dump(mode="json", exclude={"variants", "seeds", "claims"})
                folder = self.out / name if name else self.out
                tree["out"] = str(folder / f"seed-{seed}" if seed is not None else folder)
                if seed is not None:
                    tree["seed"] = seed
                if self.second_network is not None:  # one for all variants, trained with the settings of the study
                    second = tree["second_network"]
                    second["folder"] = second["folder"] or str(self.out / "models")
                    if not second["weights"] and self.fit is not None:
                        second["fit"] = second["fit"] or self.fit.plain().model_dump(mode="json")
                runs.setdefault(name, []).append(_varied(tree, name, changes))
        return runs

    def map_names(self) -> list[str]:
        """Return the names of all rows of the report: maps and views of maps."""
        return [name for entry in self.attribution_methods for name in entry.gives]

    @property
    def torch_threads(self) -> int:
        """Threads of torch in each worker process: the key `threads`, else the executor's own setting, else 1."""
        own = self.executor.kwargs.get("threads")
        return self.threads or (own if isinstance(own, int) else 1)

    def references(self) -> tuple[str, ...]:
        """Return the rows that the others can be compared with: `reference`, else the random controls.

        A metric uses the first of these rows that it has. Controls that are drawn anew each epoch come last.
        """
        if self.reference is not None:
            return (self.reference,)
        drawn = [entry for entry in self.attribution_methods if entry.is_random]
        return tuple(name for entry in sorted(drawn, key=lambda entry: entry.is_redrawn) for name in entry.gives)

    def metric_names(self) -> list[str]:
        """Return the names of the metrics that the study lists, then of those that only a variant lists."""
        parts = (self, *self._of_one_seed().values())
        return list(dict.fromkeys(entry.name for part in parts for entry in part.metrics))

    def _of_one_seed(self) -> dict[str, "Study"]:
        """Return one run of each variant, for the runs of several seeds list the same entries."""
        return {name: part for name, (part,) in self.model_copy(update={"seeds": self.seeds[:1]}).parts().items()}

    def with_metrics(self, names: Sequence[str]) -> "Study":
        """Return this study with these metrics alone, and with the claims on them.

        A variant that lists its own metrics keeps those that are named here. A metric that neither the study nor a
        variant lists is measured for all variants, with its default settings.
        """
        own = self._of_one_seed()
        every = [entry for part in (self, *own.values()) for entry in part.metrics]
        listed = {entry.name for entry in every}
        names = list(dict.fromkeys(one for name in names for one in of_settings(name, every)))

        def narrowed(entries: Iterable[MetricEntry]) -> list[dict[str, Any]]:
            listed_entries = {entry.name: entry.model_dump(mode="json", exclude_none=True) for entry in entries}
            return [
                listed_entries.get(name, {"name": name})
                for name in names
                if name in listed_entries or name not in listed
            ]

        tree = self.model_dump() | {"metrics": narrowed(self.metrics)}
        tree["claims"] = [claim.model_dump() for claim in self.claims if claim.metric in (ACCURACY, *names)]
        for name, changes in self.variants.items():
            others = {key: value for key, value in changes.items() if key.split(".")[0] != "metrics"}
            if len(others) < len(changes):
                tree["variants"][name] = others | {"metrics": narrowed(own[name].metrics)}
        try:
            return Study.model_validate(tree)
        except ValidationError as error:
            raise InvalidStudyError("\n".join(f"--metrics: {line}" for line in faults(error, tree, Study))) from None


def read(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study from its file and `key=value` overrides, such as `fit.epochs=2`.

    InvalidStudyError: the study is wrong; the message lists all problems.
    """
    tree = load(path)
    tree = moved.study(tree) if isinstance(tree, dict) else tree
    changed = [override(tree, text, path) for text in overrides]
    if changed:
        fill_changed(tree, changed)
    return check(tree, path)


def check(tree: Any, path: Path) -> Study:
    """Return the study of a tree that was read from a file. InvalidStudyError lists all problems."""
    if tree is None:
        raise InvalidStudyError(f"{path}: the file is empty; expected keys like 'data:' and 'model:'")
    if not isinstance(tree, dict):
        raise InvalidStudyError(
            f"{path}: the file contains a {type(tree).__name__}; expected keys like 'data:' and 'model:'"
        )
    if old := reference_form(tree, path):
        raise InvalidStudyError(f"{path}: {old}")
    tree = moved.study({key: value for key, value in tree.items() if not str(key).startswith("x-")})
    if many := list(too_many(tree)):
        raise InvalidStudyError("\n".join(f"{path}: {line}" for line in many))
    try:
        study = Study.model_validate(tree)
        by_variant = {
            name: VariantNames(part.metrics, part.map_names(), part.fractions)
            for name, (part, *_) in study.parts().items()
        }
        problems = list(unfounded(study.claims, by_variant))
        for name, (part, *_) in study.parts().items():
            where = f"variants.{name}: " if name else ""
            problems += [f"{where}{line}" for line in unheard(part.reference, part.attribution_methods, part.metrics)]
    except ValidationError as error:
        lines = dict.fromkeys([*faults(error, tree, Study), *disagreements(tree)])
        raise InvalidStudyError("\n".join(f"{path}: {line}" for line in lines)) from None
    except InvalidStudyError as error:
        raise InvalidStudyError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    if problems:
        raise InvalidStudyError("\n".join(f"{path}: {line}" for line in problems))
    return study


def _varied(tree: dict[str, Any], name: str, changes: Mapping[str, Any]) -> Study:
    """Return the study of the tree with a variant's changes. InvalidStudyError lists all problems."""
    tree, where = copy.deepcopy(tree), Path(f"variants.{name}")
    for key, value in changes.items():
        if key.split(".")[0] in ("out", "variants", "seeds", "claims"):
            raise InvalidStudyError(
                f"{where}: a variant cannot change '{key}'; each variant has its own folder and the seeds of the study"
            )
        put(tree, key, copy.deepcopy(value), where)  # several variants may use one YAML anchor
    fill_changed(tree, changes)
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        raise InvalidStudyError("\n".join(f"{where}: {line}" for line in faults(error, tree, Study))) from None


def dump(study: Study) -> str:
    """Return the study as YAML with all defaults. Plug-ins have their short words, which outlive dotted paths."""
    tree = study.model_dump(mode="json", exclude_none=True, context=WORDS)
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=120)


_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # same text; ten times as fast if libyaml is installed
