"""Trial of trainings that several devices share: whether a training has as many devices for itself."""

from collections.abc import Iterator

from efface.execute import processors, ray, slots, slurm
from efface.stages.run.progress import say
from efface.stages.run.run import Run
from efface.stages.work.through import is_own
from efface.study.study import Study
from efface.training.loop import TrainingSettings
from efface.training.several import devices_of

_MANY = 1000


def try_devices(run: Run, *, tell: bool = False) -> None:
    """Look at each coming training that several devices share. tell: print how a batch is shared.

    ValueError: there are fewer devices, or the executor would let several trainings share them.
    """
    lines = dict[str, None]()
    for where, fit in _to_come(run):
        if not is_own(run.study.executor):
            _refuse_small_workers(run.study, where, fit)
            continue
        try:
            count = devices_of(fit, run.device)
        except ValueError as error:
            raise ValueError(str(error).replace("fit.devices", f"{where}.devices")) from error
        if count > 1:
            _refuse_crowds(run, where, count)
            shared = f"{where}: {count} devices share each batch of {fit.batch_size} images"
            lines[f"{shared}; BatchNorm uses the whole batch, and dropout draws on each device"] = None
    for line in lines if tell else ():
        say(line)


def _to_come(run: Run) -> Iterator[tuple[str, TrainingSettings]]:
    """Yield the key and the settings of each coming training that several devices may share."""
    trainings = [
        ("fit" if network is run.first else f"{network.name}.fit", network.fit)
        for network in run.networks()
        if network.fit is not None and network.fit.devices != 1 and not network.trained()
    ]
    formulas = [metric.formula for metric in run.study.metrics]
    if run.refit is not None and any(formula.sample == "repeats" or formula.needs_fit for formula in formulas):
        trainings.append(("fit" if run.study.refit is None else "refit", run.refit))
    for where, fit in trainings:
        if fit.devices != 1:
            yield where, fit


def _refuse_crowds(run: Run, where: str, count: int) -> None:
    """ValueError: several tasks at once would train on the same GPUs, or on more processors than there are."""
    executor = run.study.executor
    workers = slots(executor.resolve(), _MANY, executor.kwargs)
    is_gpu = run.device.type == "cuda"
    if workers == 1 or (not is_gpu and workers * count <= processors()):
        return
    crowd = "on the same GPUs" if is_gpu else f"in {workers * count} processes on {processors()} processors"
    raise ValueError(
        f"{where}.devices: is {count}, but the executor runs {workers} tasks at once, which would train {crowd}; "
        "set executor=serial, so that each training has the devices for itself"
    )


def _refuse_small_workers(study: Study, where: str, fit: TrainingSettings) -> None:
    """ValueError: a worker of Ray or Slurm has fewer GPUs, or processors, than a training shares."""
    executor, key = study.executor, "cpus" if study.device == "cpu" else "gpus"
    if executor.resolve() not in (ray, slurm) or fit.devices == "auto":
        return
    given = executor.kwargs.get(key) or (1 if key == "cpus" else 0)
    if given < fit.devices:
        raise ValueError(
            f"{where}.devices: is {fit.devices}, but executor.kwargs.{key} gives each worker {given:g}; set "
            f"executor.kwargs.{key}={fit.devices}"
        )
