"""A few lines of HTML that stand for something in a notebook: facts, numbers and a picture, all in one text."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from vaes.terminal import escape

__all__ = ["card"]


def card(
    title: str,
    facts: Sequence[tuple[str, str]],
    numbers: Sequence[tuple[str, str, str]],
    picture: Image.Image | None,
    notes: Sequence[str] = (),
) -> str:
    """HTML that needs no other file and runs nothing; every text is escaped, wherever it came from.

    Args:
        title: in bold.
        facts: names and what they are.
        numbers: names, values, units.
        picture: becomes a PNG inside of the text.
        notes: set small below.
    """
    cell = 'style="text-align:left;padding:1px 14px 1px 0;border:0;background:none"'

    def row(*texts: str) -> str:
        return f"<tr>{''.join(f'<td {cell}>{_safe(text)}</td>' for text in texts)}</tr>"

    parts = [f"<div style='font-family:sans-serif'><b>{_safe(title)}</b>"]
    for rows in ([row(*fact) for fact in facts], [row(*number) for number in numbers]):
        if rows:
            parts.append(f"<table style='border-collapse:collapse;margin:6px 0'>{''.join(rows)}</table>")
    if picture is not None:
        data = io.BytesIO()
        picture.save(data, "PNG")
        source = base64.b64encode(data.getvalue()).decode("ascii")
        size = f"width='{picture.width}' height='{picture.height}'"
        parts.append(f"<img alt='samples' {size} style='max-width:100%' src='data:image/png;base64,{source}'>")
    parts += [f"<div style='font-size:small;opacity:.7'>{_safe(note)}</div>" for note in notes]
    return "".join([*parts, "</div>"])


def _safe(text: str) -> str:
    return html.escape(escape(text), quote=True)
