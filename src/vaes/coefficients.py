"""From the keys of ``objective.*`` to the weights of bound and terms: what ``Method.weights`` of each row is."""

from collections.abc import Callable

from vaes.schedules import Scheduled

__all__ = [
    "capacity_weights",
    "critic_weights",
    "dip_weights",
    "elbo_weights",
    "info_weights",
    "joint_weights",
    "kl_weights",
    "lambda_of",
    "lfq_weights",
    "ms_ssim_weights",
    "no_weights",
    "perceptual_weights",
    "rae_gp_weights",
    "rae_weights",
    "tc_weights",
    "vq_weights",
]

ROUNDING = 1e-9  # of schedules whose weight is to end at 0


def no_weights(pixels: int) -> dict[str, float]:
    """A bound without weights."""
    return {}


def elbo_weights(pixels: int, *, beta: Scheduled = 1.0) -> dict[str, float]:
    """``beta`` weighs the rate; 1 is the ELBO.

    Args:
        pixels: C * H * W.
        beta: the weight of the rate; 1 is the ELBO.
    """
    if beta < 0:
        raise ValueError(f"beta: {beta:g} is not right; it must be 0 or more")
    return {"rate": beta}


def info_weights(
    pixels: int, *, alpha: Scheduled = 0.0, lambda_: Scheduled = 2.0, mmd_scale: float | None = None
) -> dict[str, float]:
    """Rate: ``1 - alpha``. MMD: ``(alpha + lambda_ - 1) * mmd_scale``.

    ``mmd_scale`` is the nats per image that one unit of MMD counts for. By default it is pixels / 2, so that
    ``lambda_`` stands beside the *mean* squared error over pixels and carries over between image sizes, as in the
    released codes; 1 gives the paper's own units. A negative weight would reward what it is to penalise, without end.

    Args:
        pixels: C * H * W.
        alpha: the rate weighs 1 - alpha.
        lambda_: the MMD weighs (alpha + lambda_ - 1) * mmd_scale.
        mmd_scale: nats per image of one unit of MMD; null is pixels / 2, and 1 the paper's own units.
    """
    rate, mmd = 1 - alpha, alpha + lambda_ - 1
    if rate < -ROUNDING:
        raise ValueError(f"alpha: {alpha:g} gives the rate the weight {rate:g}; it must be 1 or less")
    if mmd < -ROUNDING:
        raise ValueError(
            f"lambda_: {lambda_:g} gives the MMD the weight alpha + lambda_ - 1 = {mmd:g}; with alpha {alpha:g} it "
            f"must be {rate:g} or more"
        )
    if mmd_scale is not None and mmd_scale < 0:
        raise ValueError(f"mmd_scale: {mmd_scale:g} is not right; it must be 0 or more")
    scale = pixels / 2 if mmd_scale is None else mmd_scale
    return {"rate": max(0.0, rate), "mmd": max(0.0, mmd) * scale}


def capacity_weights(pixels: int, *, gamma: Scheduled = 1000.0) -> dict[str, float]:
    """``gamma`` weighs the capacity term, in place of the rate.

    Args:
        pixels: C * H * W.
        gamma: nats of loss for a nat of rate beside the target.
    """
    return {"rate": 0.0, "capacity": _not_negative("gamma", gamma)}


def joint_weights(pixels: int, *, gamma: Scheduled = 30.0) -> dict[str, float]:
    """``gamma`` weighs the two capacities, in place of the rate.

    Args:
        pixels: C * H * W.
        gamma: nats of loss for a nat of rate beside a target.
    """
    return {"rate": 0.0, "joint_capacity": _not_negative("gamma", gamma)}


def tc_weights(pixels: int, *, beta: Scheduled = 6.0) -> dict[str, float]:
    """``beta`` weighs the total correlation, of which the rate holds one already.

    Args:
        pixels: C * H * W.
        beta: the weight of the total correlation; 1 is the ELBO.
    """
    if beta < 1:
        raise ValueError(f"beta: {beta:g} would reward total correlation; it must be 1 or more")
    return {"total_correlation": beta - 1}


def critic_weights(pixels: int, *, gamma: Scheduled = 10.0) -> dict[str, float]:
    """``gamma`` weighs the critic's total correlation, on top of the ELBO.

    Args:
        pixels: C * H * W.
        gamma: the weight of the total correlation; 0 is the ELBO.
    """
    return {"total_correlation_critic": _not_negative("gamma", gamma)}


def dip_weights(pixels: int, *, lambda_od: Scheduled = 10.0) -> dict[str, float]:
    """``lambda_od`` weighs the covariances; the variances weigh ``dip.diagonal`` times that.

    Args:
        pixels: C * H * W.
        lambda_od: nats per image of a unit of squared covariance.
    """
    return {"dip": _not_negative("lambda_od", lambda_od)}


def lambda_of(term: str) -> Callable[..., dict[str, float]]:
    """``lambda_`` weighs one term."""

    def lambda_weights(pixels: int, *, lambda_: Scheduled = 10.0) -> dict[str, float]:
        """One term beside the distortion.

        Args:
            pixels: C * H * W.
            lambda_: nats per image of one unit of the term.
        """
        return {term: _not_negative("lambda_", lambda_)}

    return lambda_weights


def rae_weights(pixels: int, *, beta: Scheduled = 1e-3) -> dict[str, float]:
    """``beta`` weighs the norm of the codes.

    Args:
        pixels: C * H * W.
        beta: the weight of half the squared norm of a code.
    """
    return {"latent_norm": _not_negative("beta", beta)}


def rae_gp_weights(pixels: int, *, beta: Scheduled = 1e-3, gamma: Scheduled = 1e-3) -> dict[str, float]:
    """``beta`` weighs the norm of the codes, ``gamma`` the decoder's gradient.

    Args:
        pixels: C * H * W.
        beta: the weight of half the squared norm of a code.
        gamma: the weight of half the squared norm of the decoder's Jacobian.
    """
    return rae_weights(pixels, beta=beta) | {"gradient_penalty": _not_negative("gamma", gamma)}


def ms_ssim_weights(pixels: int, *, beta: Scheduled = 1.0, gamma: Scheduled = 1.0) -> dict[str, float]:
    """``beta`` weighs the rate. ``gamma * pixels / 2`` nats a unit: what a Gaussian of scale 1 charges for the squared
    error, of which 1 - MS-SSIM is one in proportion to the image's variance.

    Args:
        pixels: C * H * W.
        beta: the weight of the rate; 1 is the ELBO's.
        gamma: a unit of 1 - MS-SSIM counts gamma * pixels / 2 nats per image; 0 is the ELBO.
    """
    return elbo_weights(pixels, beta=beta) | {"ms_ssim": _not_negative("gamma", gamma) * pixels / 2}


def perceptual_weights(pixels: int, *, beta: Scheduled = 1.0, gamma: Scheduled = 1.0) -> dict[str, float]:
    """``beta`` weighs the rate. ``gamma * pixels / 2`` nats a unit: what a Gaussian of scale 1 charges for the mean
    squared error of pixels, here of features.

    Args:
        pixels: C * H * W.
        beta: the weight of the rate; 1 is the ELBO's.
        gamma: a unit of the distance counts gamma * pixels / 2 nats per image; 0 is the ELBO.
    """
    return elbo_weights(pixels, beta=beta) | {"perceptual": _not_negative("gamma", gamma) * pixels / 2}


def gan_weights(pixels: int, *, pixel_weight: Scheduled = 0.0, beta: Scheduled = 1.0) -> dict[str, float]:
    """``pixel_weight`` weighs the distortion of pixels, ``beta`` the rate; features and adversary, which are one term,
    count as they are.

    Args:
        pixels: C * H * W.
        pixel_weight: the weight of the distortion of pixels; 0, the paper's, leaves reconstruction to the features.
        beta: the weight of the rate.
    """
    return elbo_weights(pixels, beta=beta) | {
        "distortion": _not_negative("pixel_weight", pixel_weight), "image_critic": 1.0
    }  # fmt: skip


def kl_weights(
    pixels: int, *, beta: Scheduled = 1e-6, gamma: Scheduled = 1.0, adversary: Scheduled = 0.1
) -> dict[str, float]:
    """``beta`` weighs the rate; features and adversary count ``gamma`` and ``adversary`` times ``pixels`` nats a unit,
    so that both stand beside the *mean* absolute error over pixels, which a Laplace of scale 1 charges pixels nats a
    unit for.

    In the code of latent diffusion the distortion is a sum over pixels to each of which ``gamma`` times the distance of
    features is added, the rate a sum over the code, and both are divided by the batch: its weight of 1e-6 is ``beta``.

    Args:
        pixels: C * H * W.
        beta: the weight of the rate; 1 is the ELBO's.
        gamma: a unit of the distance of features counts gamma * pixels nats per image; 0 leaves the term out.
        adversary: a unit of the critic's verdict counts adversary * pixels nats per image; 0 leaves the term out.
    """
    return elbo_weights(pixels, beta=beta) | {
        "perceptual": _not_negative("gamma", gamma) * pixels,
        "patch_critic": _not_negative("adversary", adversary) * pixels,
    }


def vq_weights(pixels: int, *, beta: Scheduled = 0.25) -> dict[str, float]:
    """``beta`` weighs the commitment; the codebook's own loss moves nothing but the words, and weighs 1.

    Args:
        pixels: C * H * W.
        beta: the weight of the encoder's squared distance from its words.
    """
    return {"codebook": 1.0, "commitment": _not_negative("beta", beta)}


def lfq_weights(pixels: int, *, beta: Scheduled = 0.25, gamma: Scheduled = 0.1) -> dict[str, float]:
    """``beta`` weighs the commitment, ``gamma`` the entropies of the words.

    Args:
        pixels: C * H * W.
        beta: the weight of the encoder's squared distance from its words.
        gamma: nats of loss for a nat of entropy.
    """
    return {"commitment": _not_negative("beta", beta), "code_entropy": _not_negative("gamma", gamma)}


def _not_negative(name: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"{name}: {value:g} is not right; it must be 0 or more")
    return value
