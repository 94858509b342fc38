import math

import pytest
import torch

from vaes.errors import UserError
from vaes.evaluate import Metric, NotApplicable, Skipped, mse, psnr, reconstruction_metrics, ssim


def images(n=4, c=1, h=16, w=14, seed=0):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ssim_by_loops(x, y, data_range):
    """Equation 13 of the paper at every place of the window, moments about the local means."""
    weight = torch.tensor(
        [[math.exp(-(i * i + j * j) / (2 * 1.5**2)) for i in range(-5, 6)] for j in range(-5, 6)], dtype=torch.float64
    )
    weight /= weight.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
            cov = (weight * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return torch.stack(values).mean()


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_equals_the_paper_s_sum(data_range):
    x, y = images(c=2) * data_range, images(c=2, seed=1) * data_range
    y = 0.6 * x + 0.4 * y
    wanted = [torch.stack([ssim_by_loops(x[i, c], y[i, c], data_range) for c in range(2)]).mean() for i in range(4)]
    torch.testing.assert_close(ssim(x, y, data_range=data_range), torch.stack(wanted))


def test_ssim_identities():
    x, y = images(300), images(300, seed=1)  # more than one block
    torch.testing.assert_close(ssim(x, x, data_range=1), torch.ones(300, dtype=torch.float64))
    torch.testing.assert_close(ssim(x, y, data_range=1), ssim(y, x, data_range=1))
    torch.testing.assert_close(ssim(3 * x, 3 * y, data_range=3), ssim(x, y, data_range=1))
    torch.testing.assert_close(ssim(x.flip(-1), y.flip(-1), data_range=1), ssim(x, y, data_range=1))
    board = (-1.0) ** (torch.arange(16)[:, None] + torch.arange(14))[None, None]
    assert float(ssim(board, -board, data_range=1)) < -0.9  # anticorrelated


def test_ssim_of_flat_images_is_the_luminance_term():
    x, y = torch.full((1, 1, 11, 11), 0.2), torch.full((1, 1, 11, 11), 0.7)
    wanted = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    assert float(ssim(x, y, data_range=1)) == pytest.approx(wanted, rel=1e-6)


def test_mse_and_psnr():
    x = torch.zeros(2, 3, 4, 4)
    y = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 1.0)])
    torch.testing.assert_close(mse(x, y), torch.tensor([0.01, 1.0], dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        psnr(x, y, data_range=1), torch.tensor([20.0, 0.0], dtype=torch.float64), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(psnr(2 * x, 2 * y, data_range=2), psnr(x, y, data_range=1))
    assert psnr(x, x, data_range=1).isinf().all()


def test_bytes_do_not_wrap_around():
    x, y = torch.full((1, 1, 4, 4), 3, dtype=torch.uint8), torch.full((1, 1, 4, 4), 5, dtype=torch.uint8)
    assert float(mse(x, y)) == float(mse(y, x)) == 4


def test_records_hold_mean_and_stderr():
    x, y = images(), images(seed=1)
    squared, _, similar = reconstruction_metrics(x.numpy(), y, data_range=1)
    assert (squared.name, squared.n) == ("mse", 4)
    assert squared.value == pytest.approx(float(mse(x, y).mean()))
    assert squared.stderr == pytest.approx(float(mse(x, y).std()) / 2)
    assert similar.value == pytest.approx(float(ssim(x, y, data_range=1).mean()))


def test_small_and_perfect_images_skip_what_has_no_meaning():
    x = images(h=8, w=8)
    found = reconstruction_metrics(x, x, data_range=1)
    assert [type(one) for one in found] == [Metric, Skipped, Skipped]
    assert "infinite" in found[1].reason
    assert "8x8" in found[2].reason


def test_bad_images_are_refused():
    x = images()
    with pytest.raises(UserError, match="mismatched lengths"):
        mse(x, x[:3])
    with pytest.raises(NotApplicable, match="must be alike"):
        mse(x, x[..., :5])
    with pytest.raises(NotApplicable, match="NaN or infinity in 1 of 4"):
        mse(x, torch.cat([x[:3], x[3:] / 0]))
    with pytest.raises(NotApplicable, match=r"\(N, C, H, W\)"):
        mse(x[0], x[0])
