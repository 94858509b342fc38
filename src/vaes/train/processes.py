"""Joining the other processes of a launcher, if there are any."""

import os

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from vaes.errors import UserError

__all__ = ["join"]


def join() -> PartialState:
    """This process's place among all; on the CPU where ``ACCELERATE_USE_CPU`` says so or there is no accelerator.

    Raises:
        UserError: the launcher started several processes, but they did not find each other.
    """
    # Without this Accelerate lets several processes on a machine without an accelerator each train alone.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != world:
        raise UserError(
            f"WORLD_SIZE: {world} processes were started but {state.num_processes} joined; check the launcher"
        )
    return state
