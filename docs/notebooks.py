"""The notebooks: executed, and as pages of the site.

python docs/notebooks.py    executes them, and writes what came out into them
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).with_name("notebooks")
PATHS = sorted(FOLDER.glob("*.ipynb"))


def executed(book: Any, folder: Path) -> Any:
    """A notebook with its outputs, run by this Python in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class Here(AsyncKernelManager):
        """This interpreter, whatever kernels are registered."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    NotebookClient(
        book, timeout=300, kernel_manager_class=Here, record_timing=False, resources={"metadata": {"path": str(folder)}}
    ).execute()
    for cell in book.cells:  # progress and warnings are not what a notebook is read for
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return book


def pages() -> dict[str, str]:
    """Page -> its Markdown: text, code, what it printed, and its pictures."""
    return {f"notebooks/{path.stem}.md": "\n".join(markdown(path)) for path in PATHS}


def markdown(path: Path) -> Iterator[str]:
    """A notebook as the lines of a page."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            yield from (cell.source, "")
            continue
        yield from ("```python", cell.source, "```", "")
        for out in cell.outputs:
            data = out.get("data", {})
            if "image/png" in data:
                yield from (f"![What the cell above draws](data:image/png;base64,{data['image/png'].strip()})", "")
            else:
                yield from ("```text", (out.get("text") or data.get("text/plain", "")).rstrip(), "```", "")


if __name__ == "__main__":
    for one in PATHS:
        with tempfile.TemporaryDirectory() as here:
            nbformat.write(executed(nbformat.read(one, as_version=4), Path(here)), one)
