"""TensorBoard scalars of a training."""

import contextlib
from collections.abc import Iterator

from efface.execute.process_group import member
from efface.stages.run.run import Run
from efface.training.told import Log


@contextlib.contextmanager
def scalars(run: Run, name: str) -> Iterator[Log | None]:
    """Yield a log function that writes to TensorBoard, or None if the study does not want it.

    A process that shares a training tells its scalars to the one that started it.
    """
    if member() is not None or run.study.fit is None or not run.study.fit.tensorboard:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("fit.tensorboard: tensorboard is not installed; pip install 'efface[tensorboard]'") from error
    with SummaryWriter(str(run.folder / "tensorboard" / name)) as writer:
        yield writer.add_scalar
