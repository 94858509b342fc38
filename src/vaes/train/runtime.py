"""Where a training runs: its device, its processes, its precision; and putting back what was changed for it."""

import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vaes.errors import PartnerGone, UserError

__all__ = ["DEVICES", "Precision", "Runtime", "choose_device", "together"]

DEVICES = ("auto", "cpu", "cuda", "mps")

Precision = Literal["auto", "fp32", "tf32", "bf16"]


class Runtime:
    """Device, processes and precision of a training, and the flags of the process that depend on them.

    As a context it sets those flags, and puts them back on leaving: the rounding of products in float32, by PyTorch and
    by cuDNN, belongs to the whole process, and so to whoever calls this library.

    Args:
        device: one of ``DEVICES``; ``auto`` is the accelerator that there is, or else the CPU, which
            ``ACCELERATE_USE_CPU`` asks for too.
        precision: ``auto`` takes what ``accelerate launch`` says, else float32.

    Raises:
        UserError: there is no such device, the launcher's processes did not find each other, or it asks for a precision
            that is not ours.
    """

    def __init__(self, device: str = "auto", precision: Precision = "auto") -> None:
        state = _join(device)
        self.device: torch.device = (
            state.device if device == "auto" or state.num_processes > 1 else torch.device(device)
        )
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.precision = _precision(precision)
        self.rank, self.world = state.process_index, state.num_processes
        self.is_main = state.is_main_process
        self._state = state
        self._flags: tuple[str, bool] | None = None

    def __enter__(self) -> "Runtime":
        self._flags = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        # Both ways, because cuDNN's own default is to round, and the caller may have asked for the other.
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._flags is not None
        torch.set_float32_matmul_precision(self._flags[0])
        torch.backends.cudnn.allow_tf32 = self._flags[1]

    def autocast(self) -> AbstractContextManager[Any]:
        """Inside, products are computed in bfloat16 where that is the precision."""
        # Ours, because Accelerate keeps the first precision of a process for all trainings that follow.
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def spread(self, part: nn.Module, *, by_turns: bool = False) -> nn.Module:
        """The part, or one around it that averages gradients over the processes; ``by_turns`` where a step gives them
        to some of the parameters alone."""
        if self.world == 1:
            return part
        devices = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(part, device_ids=devices, find_unused_parameters=by_turns)

    def apart(self, spread: nn.Module) -> AbstractContextManager[Any]:
        """Inside, gradients of what :meth:`spread` made stay in their process."""
        return spread.no_sync() if isinstance(spread, DistributedDataParallel) else nullcontext()

    def total(self, x: Tensor) -> Tensor:
        """The sum over processes."""
        if self.world > 1:
            x = x.clone()
            torch.distributed.all_reduce(x)
        return x

    def mean(self, x: Tensor) -> Tensor:
        """The mean over processes."""
        return self.total(x) / self.world

    def greatest(self, x: Tensor) -> Tensor:
        """The greatest over processes."""
        if self.world > 1:
            x = x.clone()
            torch.distributed.all_reduce(x, torch.distributed.ReduceOp.MAX)
        return x

    def collected(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
        found = [value] * self.world
        if self.world > 1:
            torch.distributed.all_gather_object(found, value)
        return found

    def from_first(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, or refuses, in the first process of all, in every one of them."""
        found = error = None
        if self.is_main:
            try:
                found = work()
            except UserError as refused:
                error = refused
        found, error = self.collected((found, error))[0]
        if error is not None:
            raise error
        return found

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all processes have got here."""
        self._state.wait_for_everyone()

    def first(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives in this process, which the first process of each host does before its others: it decodes
        and caches, they read the cache."""
        with self._state.local_main_process_first():
            return work()


def choose_device(name: str) -> torch.device:
    """The device of a name of ``DEVICES``, ``auto`` being the accelerator that there is.

    Raises:
        UserError: it is not there.
    """
    if name not in DEVICES:
        raise UserError(f"--device {name}: must be one of {', '.join(DEVICES)}")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = "cpu" if accelerator is None else accelerator.type
    if name == "auto":
        return torch.device("cpu" if parse_flag_from_env("ACCELERATE_USE_CPU") else there)
    if name not in ("cpu", there):
        raise UserError(f"--device {name}: PyTorch finds no such device here; it has {there}, which auto takes")
    return torch.device(name)


@contextmanager
def together() -> Iterator[None]:
    """Inside, a process whose partner is gone says so in a sentence; the one that ended first said why.

    Raises:
        PartnerGone: in place of what torch raises then.
    """
    try:
        yield
    except RuntimeError as error:  # of gloo, it has no type of its own
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise PartnerGone(
            "another process of this training ended or cannot be reached, so this one ends too; if it was killed, go "
            f"on with --resume latest ({str(error).splitlines()[0]})"
        ) from None


def _join(device: str) -> PartialState:
    """This process's place among all of its launcher, or what the caller's own Accelerator made of it."""
    # Without this Accelerate lets several processes on a machine without an accelerator each train alone.
    cpu = choose_device(device).type == "cpu"
    # The others wait while the first decodes the images; a process that is gone is noticed all the same.
    state = PartialState(cpu=cpu, timeout=datetime.timedelta(hours=6))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != world:
        raise UserError(
            f"WORLD_SIZE: {world} processes were started but {state.num_processes} joined; check the launcher"
        )
    return state


def _precision(asked: str) -> str:
    if asked != "auto":
        return asked
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launcher not in ("no", "bf16"):
        raise UserError(f"train.precision: accelerate launch asks for {launcher}; give it --mixed_precision no or bf16")
    return launcher.replace("no", "fp32")
