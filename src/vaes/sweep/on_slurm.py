"""Members as jobs of a Slurm cluster, through submitit."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from vaes import files
from vaes.errors import Stopped, UserError
from vaes.sweep.member import Ended, Task, Watcher, perform_apart
from vaes.terminal import brief, line
from vaes.train.stop import Stop

__all__ = ["Slurm"]

SHARED = frozenset({"name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout"})
"""Parameters that submitit has for every executor; all others are Slurm's own."""

DEFAULTS = {"name": "vaes", "timeout_min": 720, "cpus_per_task": 1}

WAITING = frozenset({"PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED", "CONFIGURING"})


class _Job:
    """What a job runs; submitit calls ``checkpoint`` where Slurm ends it early, and queues it again."""

    def __init__(self, task: Task, threads: int) -> None:
        self._task, self._threads = task, threads

    def __call__(self) -> Ended:
        return perform_apart(self._task, self._threads)

    def checkpoint(self) -> Any:
        """The same again, which goes on from the last checkpoint of the run."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Slurm:
    """Jobs, a member each.

    Args:
        folder: of the sweep; scripts and logs go to ``slurm/`` in it, which the nodes must see too.
        jobs: at most so many in the queue at a time; None for all.
        gpus: of each.
        parameters: of submitit (timeout_min, mem_gb, cpus_per_task, ...) and of sbatch (partition, account, qos, ...);
            ``cluster: local`` runs the jobs as processes of this machine, ``debug`` in this process.

    Raises:
        UserError: there is no Slurm, or a parameter that it does not know.
    """

    def __init__(self, folder: Path, jobs: int | None, gpus: float, parameters: Mapping[str, Any]) -> None:
        try:
            import submitit as library
        except ImportError:
            raise UserError("--engine slurm: submitit is not installed; pip install 'vaes[slurm]'") from None
        given = {**DEFAULTS, **parameters}
        self._cluster = str(given.pop("cluster", "slurm"))
        if gpus != int(gpus):
            raise UserError(f"--gpus {gpus:g}: Slurm gives whole ones; fractions go with --engine ray")
        if gpus:
            given.setdefault("gpus_per_node", int(gpus))
        self._folder, self._jobs, self._threads = (folder / "slurm").absolute(), jobs, given["cpus_per_task"]
        self._submitit = library
        self._parameters = {key if key in SHARED else f"slurm_{key}": value for key, value in given.items()}
        try:
            with tempfile.TemporaryDirectory() as elsewhere:  # submitit makes the folder at once
                self._executor(Path(elsewhere))
        except RuntimeError:
            raise UserError(
                "--engine slurm: there is no Slurm here (no srun in PATH); call it on a login node, or give --slurm "
                "cluster=local for jobs on this machine"
            ) from None
        except (ValueError, NameError, AssertionError, TypeError) as error:
            raise UserError(f"--slurm: {line(error)[:300]}") from None
        limit = f"{given['timeout_min']} minutes each (--slurm timeout_min=N), queued again three times where that ends"
        self.about = f"jobs of {self._cluster}, at most {limit}"

    def run(self, tasks: Iterator[Task], watcher: Watcher) -> None:
        """Submit them and wait; jobs that an earlier command submitted are waited for, not submitted again.

        Raises:
            Stopped: a signal came; the jobs go on.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        executor = self._executor(self._folder)
        under_way: dict[str, Any] = {}
        more = True
        with Stop() as stop:
            while True:
                while more and not stop.signal and (self._jobs is None or len(under_way) < self._jobs):
                    if (task := next(tasks, None)) is None:
                        more = False
                        break
                    under_way[task.name] = self._submitted_before(task) or self._submit(executor, task)
                    watcher.began(task.name)
                for name, job in list(under_way.items()):
                    if not self._alive(job):
                        del under_way[name]
                        watcher.ended(self._result(name, job))
                if not under_way and not more:
                    return
                if stop.signal:
                    said = "stopped watching; the jobs go on, and the same command watches them again"
                    raise Stopped(said, 128 + stop.signal)
                time.sleep(0.2 if self._cluster != "slurm" else 5)

    def _executor(self, folder: Path) -> Any:
        made = self._submitit.AutoExecutor(folder / "%j", cluster=self._cluster)
        made.update_parameters(**self._parameters)
        return made

    def _submit(self, executor: Any, task: Task) -> Any:
        job = executor.submit(_Job(task, self._threads))
        self._remember(task.name, job.job_id)
        return job

    def _remember(self, name: str, job_id: str) -> None:
        files.write_json(self._folder / "jobs.json", {**self._known(), name: [self._cluster, job_id]})

    def _known(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / "jobs.json").read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):  # without it, jobs of an earlier command are submitted again
            return {}

    def _submitted_before(self, task: Task) -> Any:
        """The job of an earlier command, if it is still there."""
        cluster, job_id = self._known().get(task.name, [None, None])
        classes = {"slurm": self._submitit.SlurmJob, "local": self._submitit.LocalJob}
        if cluster != self._cluster or cluster not in classes:
            return None
        job = classes[cluster](self._folder / "%j", job_id)
        # A job that Slurm has forgotten has no state.
        waits = str(job.state).split(" ")[0] in WAITING if cluster == "slurm" else self._alive(job)
        return job if waits else None

    def _alive(self, job: Any) -> bool:
        if self._cluster == "local" and job._process is None:  # of an earlier command
            try:
                return any(word.startswith("submitit.") for word in psutil.Process(int(job.job_id)).cmdline())
            except psutil.Error:
                return False
        return self._cluster != "debug" and not job.done()

    def _result(self, name: str, job: Any) -> Ended:
        try:
            found = job.result()
        except Exception as error:  # submitit's, of a job that was cancelled, ran out of time or memory, or was lost
            first = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
            return Ended(name, "stopped", line(f"{first[:200]} (logs: {job.paths.stderr}); the same command goes on"))
        return found if isinstance(found, Ended) else Ended(name, "failed", f"its job gave {brief(found)}")
