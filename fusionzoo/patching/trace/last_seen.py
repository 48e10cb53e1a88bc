"""What became of each stream in a traced forward: what has to be said where streams never meet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import CodeType

from torch import Tensor

from fusionzoo.patching.torch_calls import tensors_in
from fusionzoo.patching.trace.labels import modalities

#: What takes a tensor's values out of torch, and what keeps something else than values, by what is left of them.
_LEAVES: dict[str, str] = dict.fromkeys(
    ("numpy", "tolist", "item", "array", "dlpack", "float", "int", "complex"), "leaves torch"
)
_KEEPS = {
    **dict.fromkeys(("argmax", "argmin", "argsort", "multinomial", "bucketize", "searchsorted"), "is turned into positions"),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isfinite"), "is turned into truth values"),
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call of torch, by the model's code, with streams in it.

    Attributes
    ----------
    operation : str
        Its name.
    code : code or None
        The model's function that called it; None where there is none.
    line : int
        Of that call.
    labels : tuple of Tensor
        Of the streams that it took.
    gave_tensor : bool
        Whether it returned a tensor.
    """

    operation: str
    code: CodeType | None
    line: int
    labels: tuple[Tensor, ...]
    gave_tensor: bool

    @property
    def bits(self) -> list[int]:
        """Who leads each of the streams."""
        return [modalities(x) for x in self.labels]

    def __str__(self) -> str:
        if self.code is None:
            return f"{self.operation}() in a library's code"
        folder, _, file = self.code.co_filename.replace(os.sep, "/").rpartition("/")
        short = f"{folder.rpartition('/')[2]}/{file}" if folder else file
        return f"{self.operation}() at {short}:{self.line} in {self.code.co_qualname}"


def meetings(calls: list[Call], names: list[str]) -> list[str]:
    """The calls that took several streams, each place once, in words."""
    found = []
    for call in calls:
        if len(call.labels) > 1 and len(set(call.bits) - {0}) > 1:
            both = 0
            for bits in call.bits:
                both |= bits
            found.append(
                f"{call} takes {' and '.join(_named(both, names))}, but is no join that a fusion could be put in"
            )
    return list(dict.fromkeys(found))


def fates(calls: list[Call], names: list[str], output: list[Tensor | None]) -> list[str]:
    """What became of the streams, in words: where one was lost, or how it came through."""
    arrived = [modalities(labels) for labels in output if labels is not None]
    alone = [n for i, n in enumerate(names) if 1 << i in arrived]
    together = [n for i, n in enumerate(names) if n not in alone and any(bits >> i & 1 for bits in arrived)]
    out = [_lost(calls, n, i) for i, n in enumerate(names) if n not in alone and n not in together]
    if together:
        seen = bool(meetings(calls, names))
        out.append(
            f"{' and '.join(together)} reach the output together{'' if seen else ', joined where nothing can be seen'}"
        )
    if alone:
        out.append(
            f"{' and '.join(alone)} {'reaches' if len(alone) == 1 else 'each reach'} the output without the others"
        )
    return out


def _lost(calls: list[Call], name: str, i: int) -> str:
    last = next((c for c in reversed(calls) if any(bits >> i & 1 for bits in c.bits)), None)
    if last is None:
        return f"nothing is computed with {name}"
    how = _KEEPS.get(last.operation) if last.gave_tensor else _LEAVES.get(last.operation)
    return f"{name} {how} by {last}" if how else f"{name} is last seen in {last}"


def _named(bits: int, names: list[str]) -> list[str]:
    return [n for i, n in enumerate(names) if bits >> i & 1]


def gave_tensor(out: object) -> bool:
    """Whether an operation returned a tensor, alone or among others."""
    return bool(tensors_in(out))
