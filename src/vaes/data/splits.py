"""Parts of a set that are held out."""

from vaes.data.images import ImageSet, Splits
from vaes.errors import UserError
from vaes.randomness import Use, permutation

__all__ = ["divide", "hold_out"]


def hold_out(images: ImageSet, n: int, seed: int, use: Use, key: str) -> tuple[ImageSet, ImageSet]:
    """Split `images` into the rest and `n` of them chosen by the seed, both in their first order; `key` names the
    option in errors."""
    if not 0 < n < len(images):
        raise UserError(f"{key}: {n} of {len(images)} images cannot be held out; 1 to {len(images) - 1} can")
    order = permutation(len(images), seed, use)
    return images.subset(order[n:].sort().values), images.subset(order[:n].sort().values)


def divide(
    train: ImageSet, valid: ImageSet | None, test: ImageSet | None, n_valid: int | None, n_test: int | None, seed: int
) -> Splits:
    """The three splits, those that are missing held out of `train`.

    `n_test` images become the test split (None: a tenth) and `n_valid` of the rest the validation split (None: a
    twentieth, 5,000 at most).
    """
    needed = 1 + (valid is None) + (test is None)
    if len(train) < needed:
        raise UserError(f"data: {len(train)} training images cannot be divided into {needed} splits; add images")
    if test is None:
        n = max(1, len(train) // 10) if n_test is None else n_test
        train, test = hold_out(train, n, seed, Use.TEST, "data.n_test")
    if valid is None:
        n = min(5000, max(1, len(train) // 20)) if n_valid is None else n_valid
        train, valid = hold_out(train, n, seed, Use.VALID, "data.n_valid")
    return Splits(train, valid, test)
