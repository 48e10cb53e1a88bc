"""Names for what goes in and comes out of the public functions; no torch, and nothing that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from fusionzoo.data.corpus import Corpus
    from fusionzoo.data.readers import Reader
    from fusionzoo.fusion import Fusion
    from fusionzoo.host import Host
    from fusionzoo.objective import Objective
    from fusionzoo.runs.recipes import Recipe

#: Plain values: what a JSON file can hold.
JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

#: Options of a plugin, or the sections of a configuration, by name.
Options: TypeAlias = Mapping[str, object]

#: One set of a constructor's options, several, or None for the class's own.
OptionSets: TypeAlias = "Options | Iterable[Options] | None"


class ClassScores(TypedDict):
    """Scores of one class."""

    precision: float
    recall: float
    f1: float
    support: int


class RegressionScores(TypedDict):
    """Of scores beside classes, see `fusionzoo.scoring.regression`; None where nothing can be counted."""

    mae: float | None
    pearson: float | None
    acc_2: float | None
    acc_2_nonzero: float | None
    acc_7: float | None
    utterances: int


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
    regression: NotRequired[RegressionScores]
    run: NotRequired[str]
    split: NotRequired[str]
    data: NotRequired[str]
    data_sha256: NotRequired[str]
    selection: NotRequired[str | None]


class SplitSize(TypedDict):
    """How much is in a split; of a release, its utterances by class too."""

    dialogues: int
    utterances: int
    labels: NotRequired[dict[str, int]]


class ModalityFacts(TypedDict):
    """A modality as a file has it: its width, its type as stored, and how many utterances have it."""

    width: int
    dtype: str
    present: int


class CorpusSummary(TypedDict):
    """What `Corpus.summary` returns, ready for JSON; by name of modality, class or split."""

    name: str
    utterances: int
    dialogues: int
    modalities: dict[str, int]
    missing: dict[str, int]
    labels: dict[str, int]
    unlabelled: int
    speakers: dict[str, int]
    splits: dict[str, SplitSize]


class ReadOff(TypedDict):
    """Those fields of a `Spec` that a plugin's class attributes and signature tell."""

    modalities: tuple[int, int | None]
    handles: frozenset[str]
    placements: tuple[str, ...]
    variants: tuple[str, ...]
    defaults: dict[str, JSON]


class HubOptions(TypedDict, total=False):
    """What `push_to_hub` hands on to `huggingface_hub.ModelHubMixin.push_to_hub`, by its names."""

    commit_message: str
    private: bool | None
    token: str | None
    branch: str | None
    create_pr: bool | None
    allow_patterns: list[str] | str | None
    ignore_patterns: list[str] | str | None
    delete_patterns: list[str] | str | None


class InFolder(Protocol):
    """What has a folder: a run that `train` returned, a comparison, folds."""

    folder: Path


class Adapter(Protocol):
    """What knows a public repository's model; `fusionzoo.patching.repositories` says what else it may have."""

    def recognise(self, model: nn.Module, /) -> bool:
        """Whether this is the model."""
        ...


_Target: TypeAlias = "type[Fusion] | type[Host] | type[Objective] | type[Adapter] | type[Reader] | type[nn.Module]"
Plugin: TypeAlias = "_Target | Callable[..., Corpus] | Recipe | Options | str"
