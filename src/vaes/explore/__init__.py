"""Looking inside a run: a page in the browser, and one HTML file in which the decoder itself runs.

One front end (``page/``, plain ES modules) has three back ends: :mod:`vaes.explore.server` decodes with the model
itself, :mod:`vaes.explore.notebook` does so over a widget's messages, :mod:`vaes.explore.report` writes the
decoder into the file as ONNX. What they show comes from :class:`vaes.explore.source.Source`.
"""

from vaes.explore.notebook import widget
from vaes.explore.report import write_report
from vaes.explore.source import Source

__all__ = ["Source", "widget", "write_report"]
