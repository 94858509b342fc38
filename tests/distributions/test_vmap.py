"""N models at once: every function of tensors under torch.func.vmap gives what it gives for each."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vaes import distributions as D
from vaes import estimators as E

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(5))


CASES: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
    "gumbel": (D.gumbel, (uniform(2, 4),)),
    "gumbel_of_normal": (D.gumbel_of_normal, (normal(2, 4),)),
    "relaxed": (lambda a, g: D.relaxed(a, g, 0.5), (normal(2, 3, 4), normal(2, 5, 3, 4))),
    "log_relaxed": (lambda y, a: D.log_relaxed(y.log_softmax(-1), a, 0.5), (normal(2, 3, 4), normal(2, 3, 4, seed=1))),
    "straight_through": (D.straight_through, (normal(2, 3, 4),)),
    "kl_categorical": (D.kl_categorical, (normal(2, 3, 4), normal(2, 3, 4, seed=1))),
    "choose": (D.choose, (normal(2, 4), uniform(2, 6))),
    "kl_joint": (lambda h: D.kl_joint(D.split_joint(h, 2, (3, 4))), (normal(2, 3, 11),)),
    "cholesky": (lambda h, e: D.sample_cholesky(D.split_cholesky(h), e), (normal(2, 3, 14), normal(2, 5, 3, 4))),
    "log_cholesky": (lambda h, z: D.log_cholesky(z, D.split_cholesky(h)), (normal(2, 3, 14), normal(2, 5, 3, 4))),
    "kl_cholesky": (lambda h: D.kl_cholesky(D.split_cholesky(h)), (normal(2, 3, 14),)),
    "mixture": (D.sample_mixture, (normal(2, 4, 3), normal(2, 4, 3), normal(2, 6, 3), uniform(2, 6), normal(2, 4))),
    "kl_sphere": (lambda k: D.kl_von_mises_fisher(k.exp(), 5), (normal(2, 3),)),
    "log_sphere": (lambda z, m, k: D.log_von_mises_fisher(D.to_sphere(z), D.to_sphere(m), k.exp()),
                   (normal(2, 3, 4), normal(2, 3, 4, seed=1), normal(2, 3))),
    "sliced": (E.sliced_wasserstein, (normal(2, 6, 3), normal(2, 6, 3, seed=1), normal(2, 4, 3))),
    "dip": (lambda m, v: E.dip_penalties(E.latent_covariance(m, v)), (normal(2, 6, 3), normal(2, 6, 3, seed=1))),
    "capacity": (lambda r: E.capacity(r, 3.0), (normal(2, 6),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_two_models_at_once_get_what_each_gets(name: str) -> None:
    function, arguments = CASES[name]
    together = torch.func.vmap(function)(*arguments)
    alone = [function(*(a[i] for a in arguments)) for i in range(2)]
    stacked = torch.utils._pytree.tree_map(lambda *parts: torch.stack(parts), alone[0], alone[1])
    torch.testing.assert_close(torch.utils._pytree.tree_leaves(together), torch.utils._pytree.tree_leaves(stacked))
