"""The connection to a Ray cluster: quiet, without a dashboard, and without traces after its end."""

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from efface.execute.elsewhere import needed

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of a change that is to come
    "RAY_DEDUP_LOGS": "0",
}
_SECONDS = 10.0
"""Seconds in which the head node of a cluster must answer."""
_PREFIX = "efface-ray-"
_OURS: list[Path] = []
"""The folder of the local cluster that this process has started; at most one."""


def connected(address: str | None) -> Any:
    """Return the package ray, connected to a cluster, until `disconnect` or the end of the process.

    address: address of the head node, `host:port`, or "auto"; None: a local cluster of this process. A connection that
        the process has already is used as it is.

    ValueError: ray is not installed, or no cluster answers.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = needed("ray", "ray")
    if ray.is_initialized():
        return ray
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    with _signals_kept():
        if address is not None:
            try:
                if address != "auto":  # Ray itself would try for minutes, and say so on the terminal
                    host, _, port = address.rpartition(":")
                    socket.create_connection((host, int(port)), timeout=_SECONDS).close()
                ray.init(address, **quiet)
            except (OSError, RuntimeError, ValueError) as problem:
                raise ValueError(
                    f"executor: no Ray cluster answers at {address} ({problem}); start one with `ray start --head`, or "
                    "leave executor.kwargs.address out"
                ) from problem
        else:
            _OURS.append(new_folder())
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one into ~/.ray
            ray.init("local", include_dashboard=False, _temp_dir=str(_OURS[0]), **quiet)
    atexit.register(disconnect)
    return ray


def disconnect() -> None:
    """End the connection that `connected` made. A local cluster ends, and its files are removed."""
    ray = needed("ray", "ray")
    with _signals_kept():
        ray.shutdown()
    while _OURS:
        shutil.rmtree(_OURS.pop(), ignore_errors=True)
    atexit.unregister(disconnect)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the handlers of signals after the block: Ray sets its own for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def new_folder() -> Path:
    """Return a new folder for the files of a local cluster, and remove those of processes that were killed."""
    home = Path(tempfile.gettempdir())
    if len(str(home)) > 20:
        home = Path("/tmp")  # noqa: S108
    for each in home.glob(f"{_PREFIX}*-*"):
        process = each.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdecimal() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(each, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=home))
