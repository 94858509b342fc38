"""What a run is given away as: networks that need nothing of this package."""

from vaes.share.export import DTYPES, FORMATS, PARTS, Exported, export, export_onnx, export_torch, write

__all__ = ["DTYPES", "FORMATS", "PARTS", "Exported", "export", "export_onnx", "export_torch", "write"]
