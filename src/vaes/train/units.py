"""Units of the numbers that a training may measure beside its terms."""

__all__ = ["OF_FIDELITY", "unit"]

OF_FIDELITY = {
    "psnr": "dB",
    "ssim": "1 for equal images",
    "rfid": "squared distance of features",
    "perceptual": "0 for equal images",
    "lpips": "0 for equal images",
}
"""As ``psnr[FEATURES,n]``, and ``psnr_train[FEATURES,n]`` on images that it learns from."""

OF_PULLS = {
    "share": "of the sum of all parts of the loss",
    "gradient": "norm",
    "doubt": "of the loss of a critic that cannot tell",
}
"""As ``share.PART``."""


def unit(name: str) -> str | None:
    """Of a number of ``train.monitor`` or ``train.pulls_freq``; None for other names.

    >>> unit("rfid_train[classifier-5f4b1865,500]")
    'squared distance of features'
    >>> unit("share.rate")
    'of the sum of all parts of the loss'
    """
    base, bracket, _ = name.partition("[")
    if bracket:
        return OF_FIDELITY.get(base.removesuffix("_train"))
    base, dot, _ = name.partition(".")
    return OF_PULLS.get(base) if dot else None
