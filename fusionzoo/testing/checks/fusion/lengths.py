"""Checks of a fusion: what torch's tools make of it from one batch is right for any batch and any length."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fusionzoo.testing.comparisons import close, ragged
from fusionzoo.testing.runner import CheckFailure, describe_error, fail, rules, skip

rule = rules("fusion", theme="any length")

#: `(B, T)` of the example that a program is made from, and of what it is tried on.
EXAMPLE, OTHERS = (3, 5), ((3, 5), (4, 9), (2, 2), (5, 6))
_LENGTHS = (
    "compare sizes, never hash or convert them: no set or dict of lengths, int(), len(x) (x.shape[0]), .item(), nor Python "
    "loop over time (fusionzoo.kernels.recurrence.scan)"
)


def _arguments(subject: Any, size: tuple[int, int], masked: bool) -> tuple[Any, ...]:
    """Streams in their order, and the mask if there is one."""
    batch, steps = size
    streams = tuple(subject.streams(batch, steps, seed=steps).values())
    return (streams, ragged(batch, steps)) if masked else (streams,)


def _free(subject: Any, masked: bool) -> tuple[Any, ...]:
    """`dynamic_shapes` of those arguments: any batch, any length."""
    batch, steps = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("steps", min=2, max=512)
    axes = {0: batch, 1: steps}
    return (tuple(axes for _ in subject.dims), axes) if masked else (tuple(axes for _ in subject.dims),)


def _tried(
    subject: Any, tool: str, make: Callable[[Any, Any, Any], Callable[..., Tensor]], sizes: Any = OTHERS
) -> None:
    """With and without a mask: `make(fusion, arguments, dynamic_shapes)` gives a callable that is right at other sizes."""
    for masked in (False, True):
        where = "with a mask" if masked else "without a mask"
        fusion = subject.make()
        try:
            program = make(fusion, _arguments(subject, EXAMPLE, masked), _free(subject, masked))
        except Exception as error:
            fail(f"{tool} for any batch and length, {where}, raises {describe_error(error)}", _LENGTHS)
        for size in sizes:
            arguments = _arguments(subject, size, masked)
            what = (
                f"in what {tool} made of {EXAMPLE[0]} items of {EXAMPLE[1]} steps, {where}, on {size[0]} of {size[1]}"
            )
            try:
                out = program(*arguments)
            except CheckFailure:
                raise
            except Exception as error:
                fail(f"{tool}: {what} there is {describe_error(error)}", _LENGTHS)
            close(out, fusion(*arguments), what, _LENGTHS, rtol=1e-3, atol=1e-4)


@rule(slow=True)
def export_any_length(subject):
    """torch.export with free batch and time gives one program that is right at every size."""

    def make(fusion, arguments, shapes):
        return torch.export.export(fusion, arguments, dynamic_shapes=shapes).module()

    _tried(subject, "torch.export", make)


@rule(slow=True)
def compile_any_length(subject):
    """torch.compile(dynamic=True) makes one graph that serves every batch and length."""

    def make(fusion, arguments, shapes):
        graphs = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        torch.compiler.reset()
        compiled = torch.compile(fusion, backend=backend, dynamic=True, fullgraph=True)

        def run(*given):
            out = compiled(*given)
            if len(graphs) > 1:
                fail(f"torch.compile(dynamic=True) compiles {len(graphs)} graphs for batches of other sizes", _LENGTHS)
            return out

        return run

    try:
        _tried(subject, "torch.compile", make)
    finally:
        torch.compiler.reset()


@rule(slow=True)
def jit_trace_any_length(subject):
    """torch.jit.trace at one size gives a program that is right at every size, a single item or step included."""

    def make(fusion, arguments, shapes) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.trace(fusion, arguments, check_trace=False)

    _tried(subject, "torch.jit.trace", make, (*OTHERS, (1, 1)))


@rule(slow=True)
def onnx_any_length(subject):
    """ONNX with free batch and time gives the same in onnxruntime at every size."""
    missing = [p for p in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(p) is None]
    if missing:
        skip(f'needs {", ".join(missing)}; run: pip install "fusionzoo[onnx]"')
    if torch.__version__ < "2.13":
        skip(f"needs torch 2.13 or newer, whose exporter it was tried with, not {torch.__version__}")
    import onnxruntime

    def make(fusion, arguments, shapes):
        with _without_talk(), torch.no_grad():
            program: Any = torch.onnx.export(fusion, arguments, dynamic_shapes=shapes, dynamo=True, verbose=False)
        model = program.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

        def run(streams, *mask):
            given = zip(session.get_inputs(), (*streams, *mask), strict=True)
            return torch.from_numpy(session.run(None, {i.name: x.numpy() for i, x in given})[0])

        return run

    _tried(subject, "torch.onnx.export", make)


@contextlib.contextmanager
def _without_talk() -> Iterator[None]:
    """The exporter reports what other packages it does not find."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
