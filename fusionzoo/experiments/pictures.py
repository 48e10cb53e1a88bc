"""`plot`: any picture of a run, or of several, as a matplotlib figure or a file for a paper."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._csv import rows_of
from fusionzoo._files import write_bytes
from fusionzoo._schema import text_of
from fusionzoo.errors import CheckpointError, DataError, MissingDependency, OptionError, close_matches_hint
from fusionzoo.experiments.diagnosis import costs_of, embedding_figure
from fusionzoo.experiments.saved_runs import prepare
from fusionzoo.reporting import figures, plots
from fusionzoo.runs.folder import read_predictions
from fusionzoo.runs.measured import Measured, measured
from fusionzoo.scoring.diagnostics.calibration import calibration
from fusionzoo.scoring.diagnostics.inside import attention_over
from fusionzoo.scoring.diagnostics.modality_use import modality_use
from fusionzoo.scoring.metrics import MAIN, METRICS
from fusionzoo.scoring.statistics import rank_over_blocks

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile, Scores
    from fusionzoo._types import InFolder
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.host import Host
    from fusionzoo.scoring.diagnostics.calibration import Calibration

#: What a picture can be written as, by the ending of its file.
FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Wanted:
    """What is shown.

    Parameters
    ----------
    models : in the order in which they were given.
    split : None for test, or dev where test has no labels.
    dialogue : whose attention.
    embedding : `tsne` or `umap`.
    device : where the model runs.
    """

    models: Sequence[Measured]
    split: str | None = None
    dialogue: str | None = None
    embedding: str = "tsne"
    device: str | None = None

    @property
    def one(self) -> tuple[Path, ResultFile]:
        """The run of a picture that shows one: the first seed of the only model."""
        if len(self.models) != 1:
            names = ", ".join(m.name for m in self.models)
            raise OptionError(
                f"this picture shows one run, and there are {len(self.models)}: {names}; name the folder of one"
            )
        return self.models[0].runs[0]

    def split_of(self, result: ResultFile) -> str:
        """The split that is shown of a run."""
        return self.split or ("test" if result["test"] else "dev")

    def model(self) -> tuple[Host, Corpus, str]:
        """The one run's model, the split of its data and that split's name."""
        folder, result = self.one
        host, _, corpus = prepare(folder, None, False, self.device, {})
        split = self.split_of(result)
        return host, corpus.at(corpus.split == split), split


def plot(
    kind: str,
    *runs: str | Path | InFolder,
    out: str | Path | None = None,
    split: str | None = None,
    dialogue: str | None = None,
    embedding: str = "tsne",
    device: str | None = None,
) -> Any:
    """A picture of one or several runs, as a matplotlib figure.

    Parameters
    ----------
    kind : one of `KINDS`. `per-class`, `reliability`, `seeds`, `pareto` and `critical-difference` show several models; the others one run.
    runs : folders of runs or comparisons, or what `train` and `compare` return.
    out : a file ending in .png, .svg or .pdf to write it to.
    split : None for test, or dev where test has no labels.
    dialogue : of `attention`: None for one of middle length.
    embedding : `tsne`, or `umap` (needs the extra `umap`).
    device : of pictures for which the model runs: `ablation`, `robustness`, `attention`, `embedding`.

    Raises
    ------
    OptionError : there is no such picture, format or split, or it shows one run and several were given.
    CheckpointError : a folder holds no finished run.
    MissingDependency : matplotlib is not installed.
    """
    if kind not in KINDS:
        raise OptionError(
            f"there is no picture {kind!r}{close_matches_hint(kind, KINDS) or '.'} Known: {', '.join(KINDS)}"
        )
    if not plots.have_plots():
        raise MissingDependency("matplotlib", "report", "a picture")
    if not runs:
        raise OptionError("name the folder of a run or of a comparison")
    ending = None if out is None else Path(out).suffix.lower().removeprefix(".")
    if ending is not None and ending not in FORMATS:
        raise OptionError(f"{str(out)!r}: a picture is written as {', '.join('.' + f for f in FORMATS)}")
    models = measured(r if isinstance(r, (str, Path)) else r.folder for r in runs)
    figure = KINDS[kind](Wanted(models, split, dialogue, embedding, device))
    if ending is not None:
        write_bytes(Path(str(out)), encoded(figure, ending))
    return figure


def encoded(figure: Any, ending: str) -> bytes:
    """A figure in a file format; vectors keep their text, so that it can be searched and set in the paper's size."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Without dates, the same figure is the same file.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
    with rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "fusionzoo"}):
        figure.savefig(buffer, format=ending, dpi=300, metadata=metadata)
    return buffer.getvalue()


# -- from files alone -------------------------------------------------------------------------------------------------


def _confusion(wanted: Wanted) -> Any:
    _, result = wanted.one
    return plots.draw_confusion(_scores(wanted, result), f"confusion on {wanted.split_of(result)}")


def _curves(wanted: Wanted) -> Any:
    folder, result = wanted.one
    return plots.draw_curves(history_of(folder), result)


def _per_class(wanted: Wanted) -> Any:
    """Mean F1 over the seeds of each model."""
    shown = {}
    for model in wanted.models:
        per_seed = [_scores(wanted, r)["per_class"] for _, r in model.runs]
        shown[model.name] = {c: float(np.mean([s[c]["f1"] for s in per_seed if c in s])) for c in per_seed[0]}
    return figures.per_class(shown)


def _reliability(wanted: Wanted) -> Any:
    return figures.reliability(
        {m.name: calibration_of_run(*m.runs[0], wanted.split_of(m.runs[0][1])) for m in wanted.models}
    )


def _seeds(wanted: Wanted) -> Any:
    return figures.seeds({m.name: m.scores for m in wanted.models})


def _pareto(wanted: Wanted) -> Any:
    costs = {cost: models for cost, models in costs_of(wanted.models).items() if cost.startswith("parameters")}
    if len(costs) != 1:
        raise OptionError(
            f"this picture sets models side by side that have a test score on the same data; there are {len(costs)} such data sets"
        )
    ((cost, models),) = costs.items()
    return figures.pareto(models, cost)


def _critical_difference(wanted: Wanted) -> Any:
    """Fusions ranked over the hosts, data sets and other places in which all of them have runs."""
    scores: dict[str, dict[tuple[str, ...], float]] = {}
    for model in wanted.models:
        host, fusion, *place = model.name.split(" + ") if " + " in model.name else (model.name, "")
        if model.mean is not None:
            block = (host, *place, model.runs[0][1]["data"]["sha256"])
            scores.setdefault(fusion, {})[block] = METRICS[MAIN].gain(model.mean)
    blocks = sorted(set.intersection(*map(set, scores.values()))) if scores else []
    if len(scores) < 3 or len(blocks) < 3:
        raise OptionError(
            f"this picture ranks three fusions or more in three hosts or data sets or more, and all of {', '.join(scores)} have "
            f"runs in {len(blocks)}; name the folder of a larger comparison"
        )
    ranked = rank_over_blocks({fusion: [found[b] for b in blocks] for fusion, found in scores.items()})
    return plots.critical_difference(ranked)


def history_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.csv`, as numbers."""
    path = folder / "metrics.csv"
    try:
        rows = [{k: float(v or "nan") for k, v in row.items()} for row in rows_of(text_of(path, CheckpointError), path)]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]
    except (DataError, KeyError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged ({error}); train again") from None


def calibration_of_run(folder: Path, result: ResultFile, split: str) -> Calibration:
    """Calibration from the probabilities that a finished run has written down."""
    rows = [r for r in read_predictions(folder, result) if r["split"] == split and r["true"]]
    if not rows:
        raise OptionError(f"{str(folder)!r} has no labelled predictions of the {split} split; it has dev and test")
    names = [c.removeprefix("p_") for c in rows[0] if c.startswith("p_")]
    index = {n: i for i, n in enumerate(names)}
    try:
        probabilities = np.array([[float(r[f"p_{n}"]) for n in names] for r in rows])
        true = np.array([index[r["true"]] for r in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{str(folder / 'predictions.csv')!r} is damaged ({error}); train again") from None
    return calibration(true, probabilities)


def _scores(wanted: Wanted, result: ResultFile) -> Scores:
    split = wanted.split_of(result)
    scores = {"dev": result["dev"], "test": result["test"]}.get(split)
    if not scores:
        raise OptionError(
            f"a finished run has no scores of the split {split!r}; take one of dev and test that has labels"
        )
    return scores


# -- with the model ---------------------------------------------------------------------------------------------------


def _ablation(wanted: Wanted) -> Any:
    host, corpus, split = wanted.model()
    return figures.ablation(modality_use(host, corpus, split, rates=()))


def _robustness(wanted: Wanted) -> Any:
    host, corpus, split = wanted.model()
    use = modality_use(host, corpus, split, repeats=1)
    if not use.missing:
        raise OptionError(f"this model takes no missing modality: {use.refused}")
    return figures.robustness(use)


def _attention(wanted: Wanted) -> Any:
    host, corpus, split = wanted.model()
    found = attention_over(host, corpus, wanted.dialogue, split)
    if not found.maps:
        raise OptionError("this model reports no attention maps")
    return figures.attention(found)


def _embedding(wanted: Wanted) -> Any:
    host, corpus, split = wanted.model()
    return embedding_figure(host, corpus, split, wanted.embedding)[0]


#: Kind -> what draws it.
KINDS: dict[str, Callable[[Wanted], Any]] = {
    "confusion": _confusion,
    "curves": _curves,
    "per-class": _per_class,
    "reliability": _reliability,
    "ablation": _ablation,
    "robustness": _robustness,
    "attention": _attention,
    "embedding": _embedding,
    "pareto": _pareto,
    "seeds": _seeds,
    "critical-difference": _critical_difference,
}
