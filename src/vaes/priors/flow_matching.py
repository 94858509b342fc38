"""A prior that carries noise to codes along an ordinary differential equation."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from vaes.functional import log_normal
from vaes.nn import FlatVelocity, GridVelocity
from vaes.priors.base import Encode, Prior

__all__ = ["FlowMatching"]

MOST_JOINT = 4096
"""Of codes of more numbers the Gaussian that the velocity starts from takes each number by itself."""
EXACT_TRACE = 16
"""Up to so many numbers of a code a trace is taken whole; of more by probes."""
PROBES = 2
WIDTHS = {"flat": 256, "grid": 64}


class FlowMatching(Prior):
    """z = shift + scale * x(1), where ``dx/dt = v(x, t)`` from x(0) ~ N(0, I), and v is learned by flow matching along
    straight paths: of x_t = (1 - t) x_0 + t x_1, with x_0 noise and x_1 a code, the velocity is E[x_1 - x_0 | x_t].

    Lipman et al., Flow Matching for Generative Modeling, 2023, https://arxiv.org/abs/2210.02747, equation 23 with
    sigma_min = 0; Liu, Gong & Liu, 2023, https://arxiv.org/abs/2209.03003, equation 1.

    ``v = v_G + network``: v_G is the velocity of a Gaussian N(m, U diag(l) U^T) of codes, ``m + U diag((t l - (1 - t))
    / s^2) U^T (x - t m)`` with ``s^2 = (1 - t)^2 + t^2 l``, so that the network has to learn the rest alone, and begins
    as 0. Where that is all, ``x(t) = t m + U s(t) y`` for a y that stands still. The solver steps y, ``dy/dt = U^T
    network / s``: it is exact for the Gaussian in one step, and by the midpoint rule of second order in the rest. A
    code is a function of its noise.

    Args:
        z_shape: of a code, flat or a grid.
        width: of the hidden layers (256), or channels of the U-Net at full size (64).
        solver_steps: of the solver, two passes of the network each.
    """

    exact = False
    shift: Tensor  # (C,)
    scale: Tensor  # (C,)
    mean: Tensor  # (D,) m
    basis: Tensor  # (D, D) U, orthogonal; (0, 0) for the identity
    spectrum: Tensor  # (D,) l
    probes: Tensor  # (P, D) of signs

    def __init__(self, z_shape: int | tuple[int, ...], *, width: int | None = None, solver_steps: int = 20) -> None:
        super().__init__(z_shape)
        if min(solver_steps, 1 if width is None else width) < 1:
            raise ValueError(f"width and solver_steps must be at least 1, got {width} and {solver_steps}")
        self.solver_steps, size = solver_steps, self.z_dim
        if len(self.z_shape) == 1:
            self.network: nn.Module = FlatVelocity(size, width=width or WIDTHS["flat"])
        elif len(self.z_shape) == 3:
            channels, height, wide = self.z_shape
            self.network = GridVelocity((channels, height, wide), width=width or WIDTHS["grid"])
        else:
            raise ValueError(f"codes are {self.z_shape}, and it is of flat ones and of grids (C, H, W)")
        self.register_buffer("shift", torch.zeros(self.z_shape[0]))
        self.register_buffer("scale", torch.ones(self.z_shape[0]))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.eye(size) if size <= MOST_JOINT else torch.empty(0, 0))
        self.register_buffer("spectrum", torch.ones(size))
        self.register_buffer("probes", 2.0 * torch.randint(2, (PROBES, size)) - 1)

    def normalise(self, z: Tensor) -> Tensor:
        """Codes z (N, Z...) -> x (N, D)."""
        return ((z - self._column(self.shift)) / self._column(self.scale)).flatten(1)

    def _column(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (len(self.z_shape) - 1))

    def _into(self, x: Tensor) -> Tensor:
        return x @ self.basis if len(self.basis) else x

    def _out_of(self, x: Tensor) -> Tensor:
        return x @ self.basis.T if len(self.basis) else x

    def _spread(self, t: Tensor) -> Tensor:
        """Times (N,) or () -> s (N, D) or (D,)."""
        t = t[..., None]
        return ((1 - t).square() + t.square() * self.spectrum).sqrt()

    def rest(self, x: Tensor, t: Tensor) -> Tensor:
        """x (N, D) and times (N,) -> what the network adds to the Gaussian's velocity (N, D)."""
        found: Tensor = self.network(x.unflatten(1, self.z_shape), t)
        return found.flatten(1)

    def of_gaussian(self, x: Tensor, t: Tensor) -> Tensor:
        """x (N, D) and times (N,) -> v_G (N, D)."""
        s, t = self._spread(t), t[:, None]
        gain = (t * self.spectrum - (1 - t)) / s.square()
        return self.mean + self._out_of(gain * self._into(x - t * self.mean))

    def loss(self, x_1: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """Normalised codes x_1 and normal noise x_0 (N, D), and times (N,) -> mean squared error of the velocity (N,):
        least where it is E[x_1 - x_0 | x_t]. Equation 23 of Lipman et al.; the mean is over D."""
        x = x_0 + t[:, None] * (x_1 - x_0)
        return (self.of_gaussian(x, t) + self.rest(x, t) - (x_1 - x_0)).square().mean(-1)

    def _place(self, y: Tensor, t: Tensor) -> Tensor:
        return t * self.mean + self._out_of(self._spread(t) * y)

    def _solve(self, y: Tensor, times: Tensor, field: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Midpoint rule from times[0] to times[-1] for y (N, D) and a number (N,) of each, the second of which the
        result holds as its last column. ``field`` gives network and trace at x (N, D) and a time ()."""
        total = y.new_zeros(len(y))

        def slope(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            found, trace = field(self._place(y, t), t)
            return self._into(found) / self._spread(t), trace

        for t, end in pairwise(times):
            middle, step = (t + end) / 2, end - t
            half, _ = slope(y, t)
            found, trace = slope(y + step / 2 * half, middle)
            y, total = y + step * found, total + step * trace
        return torch.cat([y, total[:, None]], 1)

    def _times(self, like: Tensor) -> Tensor:
        return torch.linspace(0, 1, self.solver_steps + 1, dtype=like.dtype, device=like.device)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Standard normal noise (N, Z...) -> codes (N, Z...)."""

        def field(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return self.rest(x, t.expand(len(x))), x.new_zeros(())

        times = self._times(noise)
        y = self._solve(self._into(noise.flatten(1)), times, field)[:, :-1]
        x = self._place(y, times[-1]).unflatten(1, self.z_shape)
        return self._column(self.shift) + self._column(self.scale) * x

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> log p(z) (...), in nats, by the instantaneous change of variables: ``log N(y(0); 0, I) -
        integral of tr d network / dx - log det of s(1) and scale``. Up to the solver's error, and of codes of more than
        16 numbers with the trace estimated by probes of signs, without bias; the Gaussian's part is exact.

        Chen et al., Neural Ordinary Differential Equations, 2018, https://arxiv.org/abs/1806.07366, theorem 1;
        Grathwohl et al., FFJORD, 2019, https://arxiv.org/abs/1810.01367, equation 7.
        """
        lead = z.shape[: z.dim() - len(self.z_shape)]
        x = self.normalise(z.reshape(-1, *self.z_shape))
        times = self._times(x).flip(0)
        y = self._into(x - self.mean) / self._spread(times[0])
        found = self._solve(y, times, self._rest_and_trace)
        y, integral = found[:, :-1], found[:, -1]  # from 1 to 0: minus the integral
        return (self._of_start(y) + integral).reshape(lead)

    def log_gaussian(self, z: Tensor) -> Tensor:
        """z (N, Z...) -> the log-density (N,), in nats, of the Gaussian that the network starts from, exactly."""
        x = self.normalise(z)
        return self._of_start(self._into(x - self.mean) / self.spectrum.sqrt())

    def _of_start(self, y: Tensor) -> Tensor:
        """y (N, D) -> log-density (N,) of the code that it stands for where the network is 0."""
        zero = y.new_zeros(())
        places = self.z_dim // len(self.scale)
        volume = self.spectrum.log().sum() / 2 + places * self.scale.log().sum()
        return log_normal(y, zero, zero).sum(-1) - volume

    def _rest_and_trace(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        exact = self.z_dim <= EXACT_TRACE
        rows = torch.eye(self.z_dim).to(x) if exact else self.probes.to(x)
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            found = self.rest(x, t.clone().expand(len(x)))
            trace = x.new_zeros(len(x))
            for row in rows:
                (pulled,) = torch.autograd.grad(found, x, row.expand_as(x), retain_graph=True)
                trace = trace + (pulled * row).sum(-1)
        return found.detach(), trace if exact else trace / len(rows)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The code of noise 0."""
        return self.sample(self.mean.new_zeros(1, *self.z_shape))[0]
