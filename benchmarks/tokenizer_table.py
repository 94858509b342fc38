"""The tables of ``docs/tokenizers.md`` that ``tokenizers.py`` writes from its JSON."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaes import UserError, files

__all__ = ["write_tables"]

BEGIN, END = "<!-- tokenizers.py: begin -->", "<!-- tokenizers.py: end -->"


def write_tables(document: Mapping[str, Any], path: Path) -> None:
    """Put them between the two marks of a page, where there is such a page.

    Raises:
        UserError: a page without the marks.
    """
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path}: has no lines {BEGIN} and {END} for the tables to go between")
    files.write_text(path, f"{before}{BEGIN}\n\n" + "\n".join(lines(document)) + f"\n\n{END}{after}")


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Of a page."""
    for size, data in document["data"].items():
        n, features = data["n"], data["features"]
        yield f"{data['name']} at {size}x{size}: {data['images']['train']:,} images to train on. rFID by {features},"
        yield f"of {n['test']:,} test and {n['train']:,} training images; as many training images in the place of"
        yield f"reconstructions get {data['fid_of_training_images']:.3f}. Mean and range over seeds."
        yield ""
        yield "| f | recipe | seeds | PSNR, dB | SSIM | rFID, test | rFID, training | bias | CPU s |"
        yield "|---|---|---|---|---|---|---|---|---|"
        cells: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
        for one in document["members"]:
            if one["name"].startswith(f"{size} "):
                cells.setdefault((one["factor"], one["recipe"]), []).append(one)
        for (factor, recipe), found in sorted(cells.items(), key=lambda cell: cell[0][0]):
            yield row(factor, recipe, found)
        for one in document["members"]:
            if "prior" in one and one["name"].startswith(f"{size} "):
                yield from ["", of_prior(one)]
    if document["not_run"]:
        yield from ["", f"Not run within the budget: {', '.join(document['not_run'])}."]
    if document["failed"]:
        yield from ["", f"Failed: {'; '.join(one['member'] + ': ' + one['reason'] for one in document['failed'])}."]


def row(factor: int, recipe: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Of a factor and a recipe, all seeds."""
    test, train = [one["test"] for one in found], [one["train"] for one in found]
    seconds = [one["seconds"] for one in found if one["seconds"] is not None]
    cells = [f"{factor}", recipe, f"{len(found)}"]
    cells += [spread([one["psnr"] for one in test], 2), spread([one["ssim"] for one in test], 3)]
    cells += [spread([one["rfid"] for one in split], 3) for split in (test, train)]
    cells += [spread([one["rfid_bias"] for one in test], 3), f"{statistics.fmean(seconds):.0f}" if seconds else ""]
    return "| " + " | ".join(cells) + " |"


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and from where to where where there is more than one."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def of_prior(one: Mapping[str, Any]) -> str:
    """What is known of a discrete member's prior."""
    prior = one["prior"]
    gfid = {name: prior.get(f"gfid_{name}") for name in ("fitted", "own")}
    fids = ", ".join(f"{value:.2f} by the {name} prior" for name, value in gfid.items() if value is not None)
    return f"gFID of {one['recipe']} at f{one['factor']} (same features and number of images): {fids}."
