"""Results and batches in a few lines: shapes, types and devices of tensors, never what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fusionzoo._notebook import html_table

#: Entries of a mapping or sequence that are shown; the others are counted.
ENTRIES = 8


class Displayed:
    """Base of dataclasses (with `repr=False`) whose `repr` fits a screen; what is empty or None is left out."""

    def __repr__(self) -> str:
        lines = [f"  {k}: {brief(v)}" for k, v in self._shown().items()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])

    def _repr_html_(self) -> str:
        rows = []
        for name, value in self._shown().items():
            if isinstance(value, Mapping):
                rows += [[f"{name}[{key!r}]", brief(x)] for key, x in list(value.items())[:ENTRIES]]
                rows += [[name, f"and {len(value) - ENTRIES} more"]] if len(value) > ENTRIES else []
            else:
                rows.append([name, brief(value)])
        return html_table(type(self).__name__, ["", ""], rows)

    def _shown(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {k: v for k, v in values.items() if isinstance(v, Tensor) or (v is not None and v != {})}


def brief(value: Any) -> str:
    """One line for a value: a scalar tensor as its number, any other as `(3, 5, 10) float32 cpu`."""
    if isinstance(value, Tensor):
        return _number(value) or f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')} {value.device}"
    if isinstance(value, Mapping):
        return _few([f"{k} {brief(v)}" for k, v in list(value.items())[:ENTRIES]], len(value))
    if isinstance(value, (list, tuple)):
        return f"[{_few([brief(v) for v in value[:ENTRIES]], len(value))}]"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _number(x: Tensor) -> str | None:
    if x.dim() or x.device.type == "meta":
        return None
    try:
        return f"{x.item():.4g}"
    except RuntimeError:  # a tensor without a value: while a program is exported, or within torch.func's transforms
        return None


def _few(shown: list[str], count: int) -> str:
    return ", ".join(shown) + (f", and {count - len(shown)} more" if count > len(shown) else "")
