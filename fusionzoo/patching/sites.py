"""What `find_sites` returns: places where streams of different modalities meet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from fusionzoo._notebook import html_table
from fusionzoo._text import visible
from fusionzoo._types import JSON
from fusionzoo.errors import ModalityError, PatchOptionError
from fusionzoo.patching.arguments import parse_path
from fusionzoo.patching.call_chain import Kept, Position, Step
from fusionzoo.patching.fuse.contexts import FORMS
from fusionzoo.patching.fuse.joins import JOINS, Join
from fusionzoo.patching.layouts import check_layout
from fusionzoo.patching.modalities import ORDER

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Stream:
    """One operand of a join: its shape, and who leads it (`""` nobody, `"audio+visual"` both)."""

    lead: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.lead or '-'}:{self.shape[-1] if self.shape else 1}"


@dataclass(eq=False)
class Site:
    """A place where streams of different modalities meet.

    Attributes
    ----------
    path, module : str
        Path and class of the module whose code runs there, free functions called by it included.
    file, line, function : str, int, str
        Of the expression.
    kind : str
        The kind of join; `fusionzoo.patching.fuse.joins` has them all.
    operands : tuple of Stream
        Shape and leading modality of everything that is joined, in order.
    result : tuple of int
        Shape of what comes out.
    axis : int or None
        The axis along which operands are joined.
    layout : str
        Of the streams, `"(B, T, d)"` and so on.
    sure : bool
        Whether the trace proved the layout.
    calls : int
        How often one forward passes here.
    consumer : str
        Who reads the result first.
    live : bool
        Whether the result reaches the model's output.
    groups : dict
        Modality -> positions of its operands: the streams that a fusion put here receives.
    """

    path: str
    module: str
    file: str
    line: int
    function: str
    kind: str
    op: str
    operands: tuple[Stream, ...]
    result: tuple[int, ...]
    axis: int | None
    layout: str
    sure: bool
    calls: int
    consumer: str
    live: bool
    groups: dict[str, tuple[int, ...]]
    steps: tuple[Step, ...] = ()
    inner: tuple[Position, ...] = ()
    kept: tuple[Kept, ...] = ()  # earlier expressions in the function whose operands belong to this join
    sources: tuple[
        tuple[int, int], ...
    ] = ()  # of every operand, where there are such: which of them (-1: this), and its place
    feature_axis: int = -1
    leading: int = 1  # of an outer product: how many axes in front are not multiplied out
    dtype: str = "float32"
    device: str = "cpu"
    how: str = "rewrite"
    score: float = 0.0
    varies: bool = False
    total: int = 0  # modalities of the model
    code: str = ""
    context: tuple[str, str] | None = None  # argument that tells dialogues or real steps, and how
    hints: tuple[str, ...] = ()  # what a context= could return, where nothing proves that it tells them: code to paste

    @property
    def modalities(self) -> tuple[str, ...]:
        """The streams that meet, as a fusion put here will name them."""
        return tuple(self.groups)

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> width of the stream that a fusion put here receives."""
        return {
            name: self.join.stream_width([self.stream_width(self.operands[i].shape) for i in where])
            for name, where in self.groups.items()
        }

    @property
    def join(self) -> Join:
        """The kind, as an object."""
        return JOINS[self.kind]

    def stream_width(self, shape: tuple[int, ...]) -> int:
        """Features of an operand, or of the result, of this shape."""
        return self.join.features(shape, self.feature_axis, self.leading)

    @property
    def where(self) -> str:
        """`file:line` with the folder that it lies in."""
        parts = self.file.replace(os.sep, "/").split("/")
        return f"{'/'.join(parts[-2:])}:{self.line}"

    def __str__(self) -> str:
        axis = "" if self.axis is None else f", axis {self.axis}"
        return (
            f"{self.kind} ({self.op}{axis}) of {', '.join(map(str, self.operands))} at {self.where} in {self.function} "
            f"[{self.path or '<root>'}:{self.module}] layout {self.layout}{'' if self.sure else '?'} -> {list(self.result)}"
            f"{f' x{self.calls}' if self.calls > 1 else ''} -> {self.consumer or '?'}{'' if self.live else ' (not live)'}"
            f"{self._left_out()}"
        )

    def _left_out(self) -> str:
        meet = {m for s in self.operands for m in s.lead.split("+") if m}
        return f"; {len(meet)} of the model's {self.total} modalities" if len(meet) < self.total else ""

    def __repr__(self) -> str:
        return f"Site({self})"

    def to_json(self) -> str:
        """Plain values, for machines and for `load_patch`."""
        return json.dumps(self.to_dict(), indent=1)

    def to_dict(self) -> dict[str, JSON]:
        """Plain values."""
        out = asdict_shallow(self)
        del out["hints"]
        out["operands"] = [asdict(o) for o in self.operands]
        out["steps"] = [
            {"file": s.file, "module": s.module, "qualname": s.qualname, "line": s.line, "position": list(s.position)}
            for s in self.steps
        ]
        out["modalities"], out["widths"] = list(self.modalities), self.widths
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, JSON]) -> Site:
        """The site that `to_dict` wrote down."""
        v: dict[str, Any] = {k: x for k, x in values.items() if k in cls.__dataclass_fields__}
        v["operands"] = tuple(Stream(o["lead"], tuple(o["shape"])) for o in v["operands"])
        v["result"] = tuple(v["result"])
        v["groups"] = {k: tuple(x) for k, x in v["groups"].items()}
        v["context"] = None if v.get("context") is None else tuple(v["context"])
        v["inner"] = tuple(tuple(p) for p in v["inner"])
        v["kept"] = tuple((tuple(p), tuple(tuple(i) for i in inner)) for p, inner in v.get("kept", ()))
        v["sources"] = tuple(tuple(s) for s in v.get("sources", ()))
        v["steps"] = tuple(
            Step(s["file"], s["module"], s["qualname"], s["line"], tuple(s["position"])) for s in v["steps"]
        )
        return cls(**v)


def asdict_shallow(value: Any) -> dict[str, Any]:
    """Fields of a dataclass, tuples as they are."""
    return {f: getattr(value, f) for f in value.__dataclass_fields__}


@dataclass(eq=False)
class InputSite:
    """The model's own input, where the trainer joined the features before.

    Parameters
    ----------
    arg : str or int
        Name or number (from 0) of forward's argument that holds the joined tensor, or a path into it:
        `"data['input_tensor']"`, `"x[0]"`.
    widths : dict
        Modality -> width of its share of the last axis, in order.
    layout : str, optional
        Of that tensor; None for what a run of the model tells, else `"(B, T, d)"` or `"(B, d)"` by its rank.
    context : tuple, optional
        Argument that tells which steps are real, and how, where `find_sites` saw one.

    >>> InputSite("U", widths={"text": 100, "audio": 100, "visual": 512}, layout="(T, B, d)").total
    712
    """

    arg: str | int
    widths: dict[str, int] = field(default_factory=dict)
    layout: str | None = None
    shape: tuple[int, ...] = ()
    kind: str = "input"
    path: str = ""
    live: bool = True
    sure: bool = False
    dtype: str = "float32"
    device: str = "cpu"
    score: float = 0.0
    context: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if (
            isinstance(self.arg, bool)
            or not isinstance(self.arg, (str, int))
            or (isinstance(self.arg, int) and self.arg < 0)
        ):
            raise PatchOptionError(
                f"InputSite takes an argument's name or its number, counted from 0, not {self.arg!r}"
            )
        self.arg = str(self.arg)
        parse_path(self.arg)
        if not isinstance(self.widths, Mapping):
            raise ModalityError(f"InputSite: widths= maps modality to width, and is {type(self.widths).__name__}")
        self.widths = dict(self.widths)
        if self.layout is not None:
            self.layout, self.sure = check_layout(self.layout), True
        if not isinstance(self.path, str):
            raise PatchOptionError(f"InputSite: path= is a submodule's path as text, not {type(self.path).__name__}")
        self.dtype = dtype_name(self.dtype)
        try:
            self.device = str(torch.device(self.device))
        except (RuntimeError, TypeError) as error:
            raise PatchOptionError(
                f"InputSite: there is no device {self.device!r} ({str(error).splitlines()[0]})"
            ) from None
        if self.context is not None:
            self.context = _read_context(self.context)
        for name, width in self.widths.items():
            if not isinstance(name, str) or not name:
                raise ModalityError(f"InputSite: widths= names a modality {name!r}; use text, such as 'audio'")
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise ModalityError(f"InputSite: the width of {name!r} must be a positive integer, not {width!r}")

    @property
    def total(self) -> int:
        """Features of the joined tensor."""
        return sum(self.widths.values())

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the joined tensor, in order."""
        return tuple(self.widths)

    @property
    def where(self) -> str:
        """The argument, in words."""
        return f"argument {self.arg}"

    def as_code(self) -> str:
        """The site as it is written in Python, with what is known of it and dots for what is not."""
        given: dict[str, Any] = {"layout": self.layout, "context": self.context, "path": self.path or None}
        known = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        widths = str(self.widths) if len(self.widths) > 1 else "{'text': ..., 'audio': ...}"
        return f"fusionzoo.InputSite({self.arg!r}, widths={widths}{known})"

    def __str__(self) -> str:
        shares = ", ".join(f"{k}:{v}" for k, v in self.widths.items()) or f"widths unknown: {self.as_code()}"
        shape = f" {list(self.shape)}" if self.shape else ""
        return f"input {self.arg}{shape} ({shares}), joined before the model; layout {self.layout or 'unknown'}"

    def __repr__(self) -> str:
        return f"InputSite({self})"

    def to_dict(self) -> dict[str, JSON]:
        """Plain values."""
        return {"type": "input", **asdict_shallow(self)}

    def to_json(self) -> str:
        """Plain values, for machines and for `load_patch`."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, JSON]) -> InputSite:
        """The site that `to_dict` wrote down."""
        v: dict[str, Any] = {k: x for k, x in values.items() if k in cls.__dataclass_fields__}
        context = None if v.get("context") is None else tuple(v["context"])
        return cls(**{**v, "shape": tuple(v["shape"]), "context": context})


def _read_context(context: Any) -> tuple[str, str]:
    """The argument that tells real steps, and how, as an InputSite was given it."""
    if not isinstance(context, (tuple, list)) or len(context) != 2 or context[1] not in FORMS:
        raise PatchOptionError(
            f"InputSite: context= is an argument and how it tells which steps are real, such as ('umask', 'mask'), not {context!r}; "
            f"how: {', '.join(FORMS)}"
        )
    if not isinstance(context[0], str):
        raise PatchOptionError(f"InputSite: context= names its argument as text, not {context[0]!r}")
    parse_path(context[0])
    return context[0], context[1]


AnySite = Site | InputSite


def read_site(values: Mapping[str, Any]) -> Site | InputSite:
    """A site of either kind from its plain values."""
    return InputSite.from_dict(values) if values.get("type") == "input" else Site.from_dict(values)


_COLUMNS = ("", "kind", "where", "module", "operands", "layout", "result", "calls", "consumer", "live")


class SiteList(list["Site | InputSite"]):
    """Sites, the best candidate first; prints as a table."""

    def __init__(self, sites: Iterable[Site | InputSite] = ()):
        super().__init__(sites)

    def table(self) -> Table:
        """A rich table."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in _COLUMNS:
            table.add_column(column, overflow="fold")
        for cells in self._rows():
            table.add_row(*(Text(visible(c)) for c in cells))  # shapes stand in brackets, as markup does
        return table

    def _rows(self) -> list[tuple[str, ...]]:
        """The cells of the table."""
        rows: list[tuple[str, ...]] = []
        for i, s in enumerate(self):
            if isinstance(s, InputSite):
                shares = ", ".join(f"{k}:{v}" for k, v in s.widths.items()) or "?"
                rows.append(
                    (str(i), "input", str(s.arg), "<root>", shares, s.layout or "?", str(list(s.shape)), "1", "", "yes")
                )
                continue
            where, module = f"{s.where} {s.function}", f"{s.path or '<root>'}:{s.module}"
            layout, live = s.layout + ("" if s.sure else "?"), "yes" if s.live else "no"
            operands, result = ", ".join(map(str, s.operands)), str(list(s.result))
            rows.append((str(i), s.kind, where, module, operands, layout, result, str(s.calls), s.consumer, live))
        return rows

    def _repr_html_(self) -> str:
        return html_table(f"{len(self)} sites", _COLUMNS, self._rows())

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return "\n".join(f"{i}: {s}" for i, s in enumerate(self)) or "no site"

    __repr__ = __str__

    def to_json(self) -> str:
        """A JSON list."""
        return json.dumps([s.to_dict() for s in self], indent=1)


def grouped(streams: Sequence[Stream], varies: bool) -> dict[str, tuple[int, ...]]:
    """Modality -> operands: the pure streams, and mixed ones that bring in a modality of their own."""
    if varies:
        return {f"m{i}": (i,) for i, s in enumerate(streams) if s.lead}
    pure = {s.lead for s in streams if s.lead and "+" not in s.lead}
    labelled = [s.lead for s in streams if s.lead]
    single = len(labelled) <= len({m for lead in labelled for m in lead.split("+")})  # each is a stream of its own
    out: dict[str, list[int]] = {}

    def add(i: int, lead: str) -> None:
        count = sum(name.rstrip("0123456789") == lead for name in out)
        out.setdefault(f"{lead}{count + 1}" if single and "+" in lead and count else lead, []).append(i)

    for i, s in enumerate(streams):
        if s.lead and _brings_its_own(set(s.lead.split("+")), pure):
            add(i, s.lead)
    if len(out) < 2:
        out = {}
        for i, s in enumerate(streams):
            if s.lead:
                add(i, s.lead)
    rank = {n: i for i, n in enumerate(ORDER)}
    return {k: tuple(out[k]) for k in sorted(out, key=lambda k: rank.get(k, len(rank)))}


def _brings_its_own(parts: set[str], pure: set[str]) -> bool:
    """Whether a stream of these modalities is one beside the pure ones."""
    return len(parts) == 1 or (not parts <= pure and (len(pure) < 2 or not parts & pure))


def dtype_name(dtype: torch.dtype | str) -> str:
    """`float32` of `torch.float32`."""
    return str(dtype).removeprefix("torch.")
