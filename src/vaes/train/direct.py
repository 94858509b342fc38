"""Optimisers that start at once.

torch wraps their methods to keep its compiler out of them, and for that imports it at the first call: more than a
second of each start. A compiled step ends before the optimiser's begins, so the methods themselves serve.
"""

import inspect

import torch

__all__ = ["AdamW", "Direct"]


class Direct(torch.optim.Optimizer):
    """What all optimisers do, without the compiler."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(Direct, torch.optim.AdamW):
    """torch's, whose step is the fused one's where it is asked for."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
