"""Names for what goes in and comes out of the public functions; no torch, and nothing that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:
    from torch import nn

    from fusionzoo.data.corpus import Corpus
    from fusionzoo.fusion import Fusion
    from fusionzoo.host import Host
    from fusionzoo.objective import Objective
    from fusionzoo.recipes import Recipe

#: Plain values: what a JSON file can hold.
JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

#: Options of a plugin, or the sections of a configuration, by name.
Options: TypeAlias = Mapping[str, object]


class ClassScores(TypedDict):
    """Scores of one class."""

    precision: float
    recall: float
    f1: float
    support: int


class Scores(TypedDict):
    """What `fusionzoo.evaluate` returns, ready for JSON; `log_loss` where there are probabilities."""

    weighted_f1: float
    macro_f1: float
    ua: float
    wa: float
    log_loss: NotRequired[float]
    utterances: int
    per_class: dict[str, ClassScores]
    confusion: list[list[int]]
    never_predicted: list[str]
    run: NotRequired[str]
    split: NotRequired[str]
    data: NotRequired[str]
    data_sha256: NotRequired[str]
    selection: NotRequired[str | None]


class Adapter(Protocol):
    """What knows a public repository's model; `fusionzoo.patching.adapters` says what else it may have."""

    def recognise(self, model: nn.Module, /) -> bool:
        """Whether this is the model."""
        ...


Plugin: TypeAlias = (
    "type[Fusion] | type[Host] | type[Objective] | type[Adapter] | Callable[..., Corpus] | Recipe | Options | str"
)
