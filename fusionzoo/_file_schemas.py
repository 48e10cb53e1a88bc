"""What stands in each file that fusionzoo writes and reads back: schemas for `fusionzoo._schema`, and nothing else.

| file | schema | written by |
|---|---|---|
| a patch (`.safetensors`, its metadata) | `PatchFile` | `Patch.save` |
| `config.json` of a saved model | `ModelConfig` | `save_pretrained` |
| `model.json` of a run | `ModelFile` | `train` |
| `result.json` | `ResultFile` | `train` |
| `card.json` | `CardFile` | `train` |
| `summary.json` of folds | `FoldsFile` | `cross_validate` |
| `environment.json` | `EnvironmentFile` | `train` |
| `checkpoints/*/manifest.json` | `ManifestFile` | `train` |
| `checkpoints/*/state.json` | `StateFile` | `train` |
| `facts.json`, the metadata of a shard | `dict[str, Any]`, `FailedRows` | `fusionzoo extract` |
| a split (`.json`) | `SplitFile` | people, `cross_validate` |
| the column `provenance` of an `.npz` | `Provenance` | `save_npz` |
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from fusionzoo._schema import Count, Sha256, Width, Within

Name = Annotated[str, Within(1, 200)]
Dims = Annotated[dict[str, Width], Within(1, 1000)]
Share = Annotated[float, Within(0, 1)]
Axis = Annotated[int, Within(-64, 64)]
Place = Annotated[int, Within(-(10**9), 10**9)]
Classes = Annotated[int, Within(1, 10**5)]
Speakers = Annotated[int, Within(1, 10**6)]
Options = dict[str, Any]
Versions = dict[str, str]


# -- models -----------------------------------------------------------------------------------------------------------


class ModelConfig(TypedDict):
    """A fusion or a host, and what to build it with."""

    library: Literal["fusionzoo"]
    format: Literal[1]
    kind: Literal["fusion", "host"]
    name: Name
    distribution: str
    version: str
    api: NotRequired[int]
    arguments: ModelArguments
    modalities: NotRequired[list[str]]
    label_names: NotRequired[list[str] | None]
    versions: NotRequired[Versions]


class ModelArguments(TypedDict):
    """Those that every model has; its options stand beside them."""

    dims: Dims | Annotated[list[Width], Within(1, 1000)]
    out_dim: NotRequired[Width | None]
    num_classes: NotRequired[Classes]
    num_speakers: NotRequired[Speakers]
    placement: NotRequired[str | None]
    missing: NotRequired[str]
    fusion: NotRequired[FusionByName | FusionInstance]


class FusionByName(TypedDict):
    """A host's fusion, whose widths are the host's business."""

    name: Name
    distribution: str
    version: str
    api: NotRequired[int]
    options: Options


class FusionInstance(TypedDict):
    """A host's fusion that was built before it."""

    name: Name
    distribution: str
    version: str
    api: NotRequired[int]
    arguments: ModelArguments
    modalities: NotRequired[list[str]]


class ModelFile(TypedDict):
    """What a run's weights belong to."""

    format: Literal[1]
    host: Name
    host_options: Options
    placement: str | None
    fusion: Name
    fusion_options: Options
    dims: Dims
    num_classes: Classes
    num_speakers: Speakers
    label_names: Annotated[list[str], Within(1, 10**5)]
    objective: NotRequired[Options]
    training: NotRequired[Options]
    providers: NotRequired[ProvidersOfModel]
    versions: NotRequired[Versions]
    data: NotRequired[DataOfModel]
    selection: NotRequired[str]
    features: NotRequired[dict[str, FeatureCard]]


class FeatureCard(TypedDict):
    """How the features of a modality were made, see `fusionzoo extract`."""

    model: str
    revision: NotRequired[str | None]
    sha256: NotRequired[dict[str, str]]
    layer: NotRequired[str | int]
    pooling: NotRequired[str]
    normalise: NotRequired[bool]
    max_length: NotRequired[int | None]
    seconds: NotRequired[float | None]
    scale: NotRequired[str]
    frames: NotRequired[int | None]
    picture: NotRequired[str]


class ProvidersOfModel(TypedDict):
    """Distribution and version of host and fusion."""

    host: NotRequired[str]
    fusion: NotRequired[str]


class DataOfModel(TypedDict):
    """What the model was trained on."""

    name: str
    sha256: str


# -- patches ----------------------------------------------------------------------------------------------------------

Floating = Literal["float32", "float64", "float16", "bfloat16"]
Layout = Literal["(B, T, d)", "(T, B, d)", "(B, d)", "(N, d)", "(T, d)", "(B*T, d)", "(T*B, d)", "(..., d)"]
Position = tuple[Place, Place, Place, Place]
Shape = Annotated[list[Annotated[int, Within(0, 2**31)]], Within(0, 32)]


class StepOfSite(TypedDict):
    """One function on the way to a join."""

    file: str
    module: str
    qualname: Name
    line: Place
    position: Position


class OperandOfSite(TypedDict):
    """One stream of a join."""

    lead: str
    shape: Shape


class SiteInPatch(TypedDict):
    """`Site.to_dict`."""

    path: str
    module: str
    file: str
    line: Place
    function: str
    kind: str  # of `fuse.joins.JOINS`, which the patcher looks up
    op: str
    operands: Annotated[list[OperandOfSite], Within(1, 1000)]
    result: Shape
    axis: Axis | None
    layout: Layout
    sure: bool
    calls: Count
    consumer: str
    live: bool
    groups: Annotated[dict[str, list[Annotated[int, Within(0, 999)]]], Within(1, 1000)]
    steps: Annotated[list[StepOfSite], Within(1, 100)]
    inner: Annotated[list[Position], Within(0, 1000)]
    kept: NotRequired[Annotated[list[tuple[Position, list[Position]]], Within(0, 100)]]
    sources: NotRequired[
        Annotated[list[tuple[Annotated[int, Within(-1, 999)], Annotated[int, Within(0, 999)]]], Within(0, 1000)]
    ]
    feature_axis: Axis
    leading: Axis
    dtype: Floating
    device: Annotated[str, Within(1, 40)]
    how: str
    score: float
    varies: bool
    total: Count
    code: str
    context: tuple[str, str] | None


class InputSiteInPatch(TypedDict):
    """`InputSite.to_dict`."""

    type: Literal["input"]
    arg: Name
    widths: Annotated[dict[str, Width], Within(1, 1000)]
    layout: Layout | None
    shape: Shape
    kind: Literal["input"]
    path: str
    live: bool
    sure: bool
    dtype: Floating
    device: Annotated[str, Within(1, 40)]
    score: float
    context: tuple[str, str] | None


class ContextInPatch(TypedDict):
    """`ArgumentContext`."""

    path: Name
    form: Literal[
        "lengths", "mask", "mask.T", "not mask", "not mask.T", "steps", "steps.T", "zeros", "zeros.T", "packed"
    ]


class StreamContextsInPatch(TypedDict):
    """`StreamContexts`: each stream's name and its own."""

    of: Annotated[list[tuple[Name, ContextInPatch]], Within(1, 1000)]


class PromiseInPatch(TypedDict):
    """`Promise`."""

    words: Name
    state: Literal["proved", "broken", "not tried"]
    why: Annotated[str, Within(0, 10**4)]


class ProofInPatch(TypedDict):
    """`Proof.to_dict`."""

    promises: Annotated[list[PromiseInPatch], Within(0, 100)]
    forwards: Count
    batch: Annotated[str, Within(0, 10**4)]


class PatchFile(TypedDict):
    """The metadata of a saved patch."""

    format: Literal[1]
    fusionzoo: NotRequired[str]
    host: NotRequired[str]
    mode: Literal["residual", "replace"]
    site: Any  # one of the two above, told by its type
    digests: list[Annotated[str, Within(0, 64)]]
    fusion: ModelConfig
    context: ContextInPatch | StreamContextsInPatch | Literal["callable"] | None
    proof: NotRequired[ProofInPatch]


# -- runs -------------------------------------------------------------------------------------------------------------


class ScoresOfClass(TypedDict):
    """One class of a split."""

    precision: Share
    recall: Share
    f1: Share
    support: Count


class RegressionOfSplit(TypedDict):
    """`evaluate_scores`."""

    mae: float | None
    pearson: float | None
    acc_2: Share | None
    acc_2_nonzero: Share | None
    acc_7: Share | None
    utterances: Count


class Scores(TypedDict):
    """`evaluate_predictions`; metrics that were added since stand beside these four."""

    weighted_f1: Share
    macro_f1: Share
    ua: Share
    wa: Share
    log_loss: NotRequired[float | None]
    utterances: Count
    per_class: Annotated[dict[str, ScoresOfClass], Within(1, 10**5)]
    confusion: list[list[Count]]
    never_predicted: list[str]
    regression: NotRequired[RegressionOfSplit]


class Averages(TypedDict):
    """The four scores of a split."""

    weighted_f1: Share
    macro_f1: Share
    ua: Share
    wa: Share


class Published(TypedDict):
    """What a paper reports, in percent."""

    scores: NotRequired[dict[Name, Annotated[float, Within(0, 100)]] | None]
    protocol: NotRequired[str | None]
    flaw: NotRequired[str | None]
    source: NotRequired[str | None]


class RecipeFacts(TypedDict):
    """`Recipe.facts`."""

    name: str
    protocol: str
    variant: str | None
    system: NotRequired[str]
    published: Published


class DataOfRun(TypedDict):
    """What a run read."""

    name: str
    sha256: Sha256
    info: NotRequired[Options]


class ResultFile(TypedDict):
    """Of a finished run; `data_now`, which is never written, says that its data have changed since."""

    format: Literal[1]
    host: str
    fusion: str
    placement: str | None
    seed: Count
    selection: Literal["dev", "test"]
    metric: Name
    epoch: Annotated[int, Within(1, 2**53)]
    epochs: Annotated[int, Within(1, 2**53)]
    parameters: Count
    flops_per_utterance: float | None
    seconds: float
    device: str
    precision: str
    processes: Count
    fingerprint: str
    data: DataOfRun
    dev: Scores | None
    test: Scores | None
    recipe: NotRequired[RecipeFacts | None]
    data_now: NotRequired[str]


class CardFile(TypedDict):
    """What a run says about itself; of folds, with their plan."""

    format: NotRequired[Literal[1]]
    recipe: NotRequired[RecipeFacts | None]
    config: dict[str, Options]
    scores: SplitScores
    data: NotRequired[DataOfModel]
    packages: NotRequired[Versions | None]
    folds: NotRequired[FoldsOfFile]


class SplitScores(TypedDict):
    """Averages of dev and test, None for one without labels."""

    dev: NotRequired[Averages | None]
    test: NotRequired[Averages | None]


class Spread(TypedDict):
    """`mean_interval`."""

    mean: float | None


class MeanOfFolds(TypedDict):
    """The four scores over the folds."""

    weighted_f1: Spread
    macro_f1: Spread
    ua: Spread
    wa: Spread


class FoldsOfFile(TypedDict):
    """`FoldPlan`."""

    by: str
    k: Annotated[int, Within(2, 10**6)] | None
    seed: Count
    dev: Literal["fraction", "fold"]


class FoldsFile(TypedDict):
    """Of a cross-validation."""

    folds: FoldsOfFile
    mean: MeanOfFolds
    recipe: NotRequired[RecipeFacts | None]


class EnvironmentFile(TypedDict):
    """What ran, and where."""

    packages: Versions
    seed: NotRequired[Count]


#: A manifest names no file elsewhere.
FileNameOfCheckpoint = Literal["model.safetensors", "average.safetensors", "optimizer.pt", "state.json"]


class FileOfCheckpoint(TypedDict):
    """Size and hash."""

    bytes: Count
    sha256: Sha256


class ManifestFile(TypedDict):
    """What makes a checkpoint whole."""

    format: Literal[1]
    epoch: Count
    files: dict[FileNameOfCheckpoint, FileOfCheckpoint]


class BestEpoch(TypedDict):
    """The epoch chosen so far."""

    epoch: Annotated[int, Within(1, 10**9)]
    score: float


class StateFile(TypedDict):
    """What a run goes on from, besides tensors."""

    epoch: Annotated[int, Within(1, 10**9)]
    best: BestEpoch
    history: list[dict[str, float | None]]
    seconds: Annotated[float, Within(0)]
    data_sha256: Sha256
    steps: Annotated[int, Within(1, 2**53)]


# -- data -------------------------------------------------------------------------------------------------------------


#: Split -> reader -> score -> its value, of generated data.
Ceiling = dict[str, dict[str, dict[str, float]]]


class Provenance(TypedDict):
    """What an `.npz` says about its origin; only what somebody reads again is named here."""

    text_views: NotRequired[Annotated[int, Within(0, 64)] | None]
    demo: NotRequired[Options]
    skipped: NotRequired[list[str]]
    made_from: NotRequired[Options]


#: Row, file and reason of what could not be extracted.
FailedRows = list[tuple[Count, str, str]]
#: Split -> ids of its dialogues.
SplitFile = dict[str, list[str | int]]
