"""Optimisers without torch's compiler: the same steps, and a start that does not import it."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vaes.train.direct import AdamW


def test_its_steps_and_its_state_are_torch_s() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "fused": True}
    pair = AdamW(ours.parameters(), **options), torch.optim.AdamW(theirs.parameters(), **options)
    x = torch.randn(7, 3)
    for step in range(4):
        for module, optimizer in zip((ours, theirs), pair, strict=True):
            module(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
        assert all(p.grad is None and p.requires_grad for p in ours.parameters())
        if step == 1:
            pair[0].load_state_dict(copy.deepcopy(pair[1].state_dict()))
    a, b = (optimizer.state_dict() for optimizer in pair)
    assert a["param_groups"] == b["param_groups"]
    assert a["state"].keys() == b["state"].keys()


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_training_its_checkpoint_and_its_samples_start_no_compiler(tmp_path: Path, optimizer: str) -> None:
    program = f"""
import sys, vaes
own = {{"optimizer": "{optimizer}", "n_steps": 2, "batch_size": 8}}
small = {{"network": {{"kind": "conv", "dim": 4}}}}
vaes.Experiment(data={{"kind": "digits", "image_size": 16}}, model=small, train=own).fit("run")
vaes.Experiment(data={{"kind": "digits", "image_size": 16}}, model=small, train=own).replace(
    {{"train.n_steps": 3}}).fit("run", resume="latest")
vaes.load("run").sample(2)
print("torch._dynamo" in sys.modules, "vaes.evaluate" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["False False"], done.stderr
