"""Joining the other processes of a launcher, if there are any."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from vaes.errors import UserError

__all__ = ["join", "together"]


def join() -> PartialState:
    """This process's place among all; on the CPU where ``ACCELERATE_USE_CPU`` says so or there is no accelerator.

    Raises:
        UserError: the launcher started several processes, but they did not find each other.
    """
    # Without this Accelerate lets several processes on a machine without an accelerator each train alone.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    # The others wait while the first decodes the images; a process that is gone is noticed all the same.
    state = PartialState(cpu=cpu, timeout=datetime.timedelta(hours=6))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != world:
        raise UserError(
            f"WORLD_SIZE: {world} processes were started but {state.num_processes} joined; check the launcher"
        )
    return state


@contextmanager
def together() -> Iterator[None]:
    """Inside, a process whose partner is gone says so in a sentence; the one that ended first said why.

    Raises:
        UserError: in place of what torch raises then.
    """
    try:
        yield
    except RuntimeError as error:  # of gloo, it has no type of its own
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            "another process of this training ended or cannot be reached, so this one ends too; if it was killed, go "
            f"on with --resume latest ({str(error).splitlines()[0]})"
        ) from None
