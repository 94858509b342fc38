"""Encoder, decoder and sampler of a run as ONNX models, and as torch.export programs that need no package of ours."""

import hashlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaes import __version__, files
from vaes.errors import UserError
from vaes.run import Run
from vaes.share.half import Halved, halve
from vaes.share.operators import DECOMPOSITIONS
from vaes.share.parts import PARTS, Network, Part, network

__all__ = ["DTYPES", "FORMATS", "PARTS", "Exported", "export_onnx", "export_parts", "export_torch", "write"]

Format = Literal["onnx", "torch"]
Dtype = Literal["float32", "float16"]
FORMATS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
"""The formats, and what their files end in."""
DTYPES: tuple[Dtype, ...] = ("float32", "float16")

OPSET = 18
TOLERANCE = 1e-4
"""How far a float32 output may be from the model's: of its size, and at least of 1."""
BATCHES = (1, 63)
"""Batches that an export is held against the model with; neither is the one that it was traced with."""
METADATA = "vaes.json"


class Exported(NamedTuple):
    """A part of a run as the content of a file, held against the model."""

    part: Part
    content: bytes
    inputs: dict[str, str]  # what the network takes, by name
    outputs: dict[str, str]  # what it gives, by name, in order
    difference: float  # the largest of an output from the model's, in units of the output
    levels: float | None  # the same of a pixel, in 255ths of the value range; None where no image comes out
    metadata: dict[str, Any]  # as it lies in the file


def export_onnx(run: Run, part: Part, dtype: Dtype = "float32") -> Exported:
    """A part of a run as an ONNX model of any batch size, with all its weights.

    ``float16`` stores weights in half the bytes; numbers go in and come out, and are computed, in float32. What the
    file says of itself is in its ``metadata_props``.

    Raises:
        UserError: ``vaes[onnx]`` is not installed, the part has an operation that ONNX lacks, or what came out
            differs from the model.
    """
    _refuse_without_onnx()
    import onnxruntime

    made = network(run.model, part, run.image_shape)
    metadata = _metadata(run, made, part, dtype)
    with _translating(part, "ONNX"):
        content = _to_onnx(made, metadata, dtype)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def compute(x: Tensor) -> Sequence[np.ndarray]:
        found: Sequence[np.ndarray] = session.run(list(made.gives), {made.given: x.numpy()})
        return found

    return _checked(run, made, part, dtype, content, compute, metadata)


def export_torch(run: Run, part: Part, dtype: Dtype = "float32") -> Exported:
    """A part of a run as a ``torch.export`` program of any batch size: ``torch.export.load(file).module()(x)``.

    Dtypes are those of :func:`export_onnx`; what the file says of itself is its extra file ``vaes.json``.

    Raises:
        UserError: the part cannot be traced, or what came out differs from the model.
    """
    made = network(run.model, part, run.image_shape)
    metadata = _metadata(run, made, part, dtype)
    with _translating(part, "a program"):
        x, content = made.inputs(3), io.BytesIO()
        _forget_unused(made.module, x)
        program = _trace(Halved(made.module) if dtype == "float16" else made.module, x)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it names folders of this machine
        torch.export.save(program, content, extra_files={METADATA: json.dumps(metadata)})
        loaded = torch.export.load(io.BytesIO(content.getvalue())).module()

    def compute(x: Tensor) -> Sequence[np.ndarray]:
        return [y.numpy() for y in loaded(x)]

    return _checked(run, made, part, dtype, content.getvalue(), compute, metadata)


def export_parts(run: Run, to: Format, parts: Sequence[Part] = PARTS, dtype: Dtype = "float32") -> list[Exported]:
    """Parts of a run, or a refusal of all where one cannot go. See :func:`export_onnx` and :func:`export_torch`."""
    one = export_onnx if to == "onnx" else export_torch
    made = []
    for part in parts:
        try:
            made.append(one(run, part, dtype))
        except UserError as error:
            others = [p for p in PARTS if p != part]
            rest = f"; the others may: --only {','.join(others)}" if len(parts) > 1 else ""
            raise UserError(f"{error}{rest}") from error
    return made


def write(exported: Sequence[Exported], where: Path, to: Format) -> list[Path]:
    """Write each part to ``PART.onnx`` or ``PART.pt2`` in a folder, each file whole or not at all.

    A single part goes to ``where`` itself if that ends in ``.onnx`` or ``.pt2``. Returns the paths.

    Raises:
        UserError: the folder cannot be written.
    """
    single = where.suffix == FORMATS[to]
    if single and len(exported) != 1:
        raise ValueError(f"{where} is one file, and there are {len(exported)} parts")
    paths = [where] if single else [where / f"{one.part}{FORMATS[to]}" for one in exported]
    files.refuse_unwritable(paths[0].parent)
    for path, one in zip(paths, exported, strict=True):
        if path.is_dir():
            raise UserError(f"{path}: is a folder; give the name of a file, or another folder")
        files.write_atomic(path, lambda temporary, one=one: temporary.write_bytes(one.content))  # type: ignore[misc]
    return paths


def _refuse_without_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}: pip install 'vaes[onnx]'")


def _metadata(run: Run, made: Network, part: Part, dtype: Dtype) -> dict[str, Any]:
    e = run.experiment
    return {
        "part": part,
        "vaes": __version__,
        "method": e.method,
        "posterior": e.model["posterior"]["kind"],
        "prior": e.model["prior"]["kind"],
        "config_sha256": hashlib.sha256(e.to_yaml().encode()).hexdigest(),
        "weights_sha256": run.sha256,
        "step": run.step,
        "image_shape": list(run.image_shape),
        "value_range": list(run.model.value_range),
        "z_shape": list(run.model.z_shape),
        "noise": {"shape": list(run.model.prior.noise.shape), "law": run.model.prior.noise.law},
        "input": {made.given: made.meanings[made.given]},
        "outputs": {name: made.meanings[name] for name in made.gives},
        "weights_dtype": dtype,
    }


@contextmanager
def _translating(part: Part, what: str) -> Iterator[None]:
    """Inside, exporters are quiet, and what they raise is one sentence: own networks may fail in any way."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        lines = [line.strip() for line in str(root).splitlines() if line.strip()]
        why = f"{type(root).__name__}{f': {lines[0]}' if lines else ''}"
        raise UserError(f"{part}: cannot be made {what}: {why[:300]}") from error
    finally:
        logging.disable(before)


def _trace(module: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def _forget_unused(module: nn.Module, x: Tensor) -> None:
    """Empty the weights that the module never looks at: a program would carry them."""
    program, state = _trace(module, x), {**dict(module.named_parameters()), **dict(module.named_buffers())}
    program.graph.eliminate_dead_code()
    places = [node for node in program.graph.nodes if node.op == "placeholder"]
    for spec, node in zip(program.graph_signature.input_specs, places, strict=True):
        if spec.target in state and not node.users:
            state[spec.target].data = state[spec.target].data.new_empty(0)


def _to_onnx(made: Network, metadata: Mapping[str, Any], dtype: Dtype) -> bytes:
    program = _trace(made.module, made.inputs(3)).run_decompositions(
        {**torch.export.default_decompositions(), **DECOMPOSITIONS}
    )
    exported = torch.onnx.export(
        program,
        input_names=[made.given],
        output_names=list(made.gives),
        opset_version=OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    proto = exported.model_proto
    graph = proto.graph
    # Traces of the source, which name folders of this machine.
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph, *proto.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph.name, proto.producer_name, proto.producer_version = str(metadata["part"]), "vaes", __version__
    for key, text in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = f"vaes.{key}", text if isinstance(text, str) else json.dumps(text)
    if dtype == "float16":
        halve(graph)
    content: bytes = proto.SerializeToString()
    return content


@torch.no_grad()
def _checked(
    run: Run,
    made: Network,
    part: Part,
    dtype: Dtype,
    content: bytes,
    compute: Callable[[Tensor], Sequence[np.ndarray]],
    metadata: dict[str, Any],
) -> Exported:
    """The export, if it gives what the model gives: weights of the model itself, not of a copy that was prepared."""
    fresh = network(run.model, part, run.image_shape)
    x, difference, worst = fresh.inputs(sum(BATCHES)), 0.0, 0.0
    for chunk in x.split(BATCHES):
        for wanted, found in zip(fresh.module(chunk), compute(chunk), strict=True):
            error = (torch.from_numpy(found) - wanted).abs()
            difference = max(difference, error.max().item()) if error.isfinite().all() else float("nan")
            worst = max(worst, (error / wanted.abs().clamp_min(1)).max().item())
    if not np.isfinite(difference):
        raise UserError(
            f"{part}: comes out of {dtype} as no number"
            + ("; its weights need --dtype float32" if dtype == "float16" else ": the model itself may be of no use")
        )
    if dtype == "float32" and worst > TOLERANCE:
        raise UserError(
            f"{part}: what was exported is {worst:.1g} off the model, and {TOLERANCE:g} is the most allowed"
        )
    low, high = run.model.value_range
    levels = None if part == "encoder" else 255 * difference / (high - low)
    outputs = {name: made.meanings[name] for name in made.gives}
    return Exported(part, content, {made.given: made.meanings[made.given]}, outputs, difference, levels, metadata)
