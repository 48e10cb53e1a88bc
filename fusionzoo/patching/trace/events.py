"""What a traced forward notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fusionzoo.patching.call_chain import Position, Step
from fusionzoo.patching.modalities import Leaf
from fusionzoo.patching.trace.last_seen import Call


class Meeting(Protocol):
    """A kind of join, as far as the tracer has to know it."""

    attends: bool
    listed: bool

    def as_called(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]) -> Any:
        """The kind of a call of one of its operations; None where it joins nothing."""
        ...

    def axis(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], rank: int) -> int | None:
        """The axis along which operands are joined."""
        ...


@dataclass
class Operand:
    """A tensor that took part in a join."""

    tensor: int
    shape: tuple[int, ...]
    labels: Tensor | None
    bits: int
    producer: int = -1  # the event whose direct result it is
    origin: int = -1  # the event whose result it is, in whatever shape


@dataclass
class Event:
    """One join, once."""

    index: int
    join: Any  # the kind: a `Meeting`
    op: str
    operands: list[Operand]
    result: tuple[int, ...]
    result_labels: Tensor | None
    dtype: torch.dtype
    device: torch.device
    owner: nn.Module
    path: str
    steps: list[Step]
    axis: int | None
    consumer: str = ""
    absorbed: bool = False
    frame: int = 0
    live: bool = True
    main: bool = True  # whether it reaches the model's first output
    weighs: bool = False  # whether it reaches outputs as the weights of a softmax only
    callee: nn.Module | None = None  # of an attention written out in operations: the module that was called for it
    lifted: bool = False
    raw: tuple[str, list[Operand], nn.Module, str, list[Step]] | None = (
        None  # a library's attention function, as it was called
    )
    scores: int | None = None  # of an attention written out in one function: the event that computed its weights
    node: Any = None  # the expression in the source
    inner: list[Position] = field(default_factory=list)


@dataclass
class Trace:
    """What a traced forward gave."""

    events: list[Event]
    names: list[str]
    leaves: list[Leaf]
    arguments: Mapping[str, Any]
    positional: int = 0  # of the arguments, how many were given without their names
    time_votes: list[int] = field(default_factory=lambda: [0, 0])  # for input axis 0 and 1
    output: Any = None
    output_labels: list[Tensor | None] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)  # every one that took streams
    seen: list[str] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)  # arguments taken for no streams that an embedding has rows for
    compared: list[Event] = field(default_factory=list)  # tables of scores, in which nothing is joined
