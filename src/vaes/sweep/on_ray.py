"""Members as tasks of a Ray cluster."""

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

from vaes.errors import Stopped, UserError
from vaes.sweep.member import Ended, Task, Watcher, perform_apart
from vaes.terminal import brief, line
from vaes.train.stop import Stop

__all__ = ["Ray"]

RETRIES = 3
"""How often a member whose machine or process is lost is taken up by another, from its last checkpoint."""


class Ray:
    """Tasks, a member each; run folders and images must lie where all nodes see them.

    Args:
        jobs: members at a time; None for as many as the cluster takes.
        threads: of this process, which a Ray of this machine alone divides.
        gpus: of each member, a fraction where several share one.
        address: of the cluster (``auto``, ``host:port``, ``ray://...``); None for the Ray that this process is
            connected to, or one of this machine alone.

    Raises:
        UserError: Ray is not installed, or cannot be reached.
    """

    def __init__(self, jobs: int | None, threads: int, gpus: float, address: str | None) -> None:
        if address is not None:
            _refuse_unreachable(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise UserError("--engine ray: Ray is not installed; pip install 'vaes[ray]'") from None
        self._ray, self._jobs, self._gpus = ray, jobs, gpus
        self._threads = 1 if address is not None or jobs is None else max(1, threads // jobs)
        self._ours = not ray.is_initialized()
        cpus = max(threads, (jobs or 1) * self._threads)
        alone: dict[str, Any] = {} if address else {"num_cpus": cpus, "include_dashboard": False}
        if self._ours:
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
                where = f"--address {address}" if address else "a Ray of this machine"
                raise UserError(f"--engine ray: {where} cannot be reached ({line(error)[:200]})") from None
        nodes = len(ray.nodes())
        share = f", {gpus:g} GPU" if gpus else ""
        self.about = f"on Ray, {nodes} node{'s' * (nodes > 1)}; each with {self._threads} CPU{share}"

    def run(self, tasks: Iterator[Task], watcher: Watcher) -> None:
        """Train them all.

        Raises:
            Stopped: a signal came; members under way go on from their last checkpoint with the next command.
        """
        ray = self._ray
        train = ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_retries=RETRIES)(perform_apart)
        under_way: dict[Any, str] = {}
        more = True
        try:
            with Stop() as stop:
                while True:
                    while more and not stop.signal and (self._jobs is None or len(under_way) < self._jobs):
                        if (task := next(tasks, None)) is None:
                            more = False
                            break
                        under_way[train.remote(task, self._threads)] = task.name
                        watcher.began(task.name)
                    if stop.signal:
                        self._cancel(under_way)
                        raise Stopped("stopped; the same command goes on", 128 + stop.signal)
                    if not under_way:
                        return
                    for done in ray.wait(list(under_way), timeout=0.5)[0]:
                        watcher.ended(self._result(under_way.pop(done), done))
        finally:
            if self._ours:
                ray.shutdown()

    def _cancel(self, under_way: dict[Any, str]) -> None:
        for reference in under_way:
            self._ray.cancel(reference)
        deadline = time.monotonic() + 20  # for a last checkpoint
        while under_way and time.monotonic() < deadline:
            done = self._ray.wait(list(under_way), num_returns=len(under_way), timeout=1)[0]
            if len(done) == len(under_way):
                return

    def _result(self, name: str, reference: Any) -> Ended:
        try:
            ended: Ended = self._ray.get(reference)
            return ended
        except self._ray.exceptions.RayError as error:
            first = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
            return Ended(name, "stopped", line(f"{first[:200]}; the same command goes on"))


def _refuse_unreachable(address: str) -> None:
    """Ray itself tries for minutes."""
    if address == "auto":
        return
    match = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[^:/\[\]]+):([0-9]{1,5})", address)
    if match is None:
        raise UserError(f"--address {brief(address)}: must be auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or line(error)
        raise UserError(f"--engine ray: --address {address} cannot be reached ({why})") from None
