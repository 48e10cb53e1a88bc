"""`diagnose`: what is to be known about a trained model, or the models of a comparison, beyond the score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._progress import Bar, print_line
from fusionzoo.data.clips.corpus import ClipCorpus
from fusionzoo.data.label_leaks import read_labels
from fusionzoo.data.leaks import find_leaks
from fusionzoo.errors import FusionZooError, OptionError, close_matches_hint
from fusionzoo.experiments.saved_runs import check_classes, prepare
from fusionzoo.reporting import diagnosis as pages
from fusionzoo.reporting import figures, plots
from fusionzoo.reporting.diagnosis import Diagnosis, Section
from fusionzoo.runs.config import model_title
from fusionzoo.runs.data_section import corpus_sha256
from fusionzoo.runs.folder import read_result
from fusionzoo.runs.measured import Measured, is_run, measured
from fusionzoo.scoring.diagnostics.calibration import calibration_of
from fusionzoo.scoring.diagnostics.evidence import evidence_use, is_demo, predictions_needed
from fusionzoo.scoring.diagnostics.groups import groups_of
from fusionzoo.scoring.diagnostics.inside import METHODS, attention_over, fused_vectors, in_the_plane
from fusionzoo.scoring.diagnostics.modality_use import modality_use, steps_of
from fusionzoo.scoring.diagnostics.predicted import Finding, Predicted, points, predict_split
from fusionzoo.scoring.metrics import MAIN, METRICS

if TYPE_CHECKING:
    from fusionzoo._types import InFolder
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.host import Host

#: The parts of a diagnosis, in the order of the page.
PARTS = ("leaks", "modalities", "calibration", "groups", "evidence", "attention", "embedding")
#: Those that are made for every model of a comparison.
_SHORT = PARTS[:5]
#: A map of more points says nothing more and takes minutes.
_MOST_POINTS = 1500
METHOD_NAMES = {"tsne": "t-SNE", "umap": "UMAP"}


@dataclass
class _Looked:
    """What is looked at, and what has been found so far."""

    host: Host
    whole: Corpus
    corpus: Corpus
    split: str
    predicted: Predicted
    options: Asked
    bar: Bar
    findings: list[Finding] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What was asked for.

    Parameters
    ----------
    parts : of `PARTS`.
    embedding : `tsne` or `umap`.
    dialogue : whose attention is shown; None for one of middle length.
    repeats : permutations of each modality.
    seed : of permutations and missing modalities.
    batch_size : dialogues at a time.
    """

    parts: tuple[str, ...]
    embedding: str
    dialogue: str | None
    repeats: int
    seed: int
    batch_size: int


def diagnose(
    run: str | Path | InFolder,
    data: str | Path | Corpus | None = None,
    *,
    split: str | None = None,
    parts: Sequence[str] | None = None,
    out: str | Path | None = None,
    embedding: str = "tsne",
    dialogue: str | None = None,
    repeats: int = 5,
    seed: int = 0,
    device: str | None = None,
    batch_size: int = 16,
    quiet: bool = False,
    **options: object,
) -> Diagnosis:
    """Say what a trained model does beyond its score, and write it to a page.

    Parameters
    ----------
    run : a run's folder, or a comparison's: then the first seed of each model is looked at, and cost is set against score.
        What `train` and `compare` return will do as well.
    data : what it is looked at with; None for the data that it was trained on.
    split : `test`, `dev` or `train`; None for test, or dev where test has no labels.
    parts : `leaks` (are the labels in the data), `modalities` (ablation, permutation importance, robustness),
        `calibration`, `groups` (class, speaker, length, emotion shift), `evidence` (of `demo`), `attention`, `embedding`;
        None for all of them, and for those that compare in a comparison.
    out : folder of `diagnosis.html`, `diagnosis.json` and the folder `diagnosis` with tables and pictures; None for the
        run's own.
    embedding : `tsne`, or `umap` (needs the extra `umap`).
    dialogue : whose attention is shown; None for one of middle length.
    repeats : permutations of each modality.
    seed : of permutations and missing modalities.
    device : None or `auto` for a GPU where there is one.
    batch_size : dialogues at a time; rounding apart, nothing depends on it.
    quiet : show no progress.
    options : handed to the reader of `data`.

    Returns
    -------
    The findings in words, with tables and pictures; `print` it.

    Raises
    ------
    CheckpointError : the folder holds no model, or a damaged one.
    DataError : the data do not fit, or the split has no labels.
    OptionError : a part or a method that does not exist.
    """
    folder = Path(run) if isinstance(run, (str, Path)) else run.folder
    asked = Asked(_parts(parts), embedding, dialogue, repeats, seed, batch_size)
    _check(asked)
    if is_run(folder):
        with Bar(enabled=not quiet, unit="predictions") as bar:
            found = _of_run(folder, data, split, asked, device, options, bar)
        found.folder = folder if out is None else Path(out)
        found.write()
        return found
    models = measured([folder])
    if parts is None:
        asked = Asked(_SHORT, embedding, dialogue, repeats, seed, batch_size)
    found = _of_models(folder, models, data, split, asked, device, options, quiet)
    found.folder = folder if out is None else Path(out)
    found.write()
    return found


def _parts(parts: Sequence[str] | None) -> tuple[str, ...]:
    chosen = PARTS if parts is None else tuple(parts)
    for part in chosen:
        if part not in PARTS:
            raise OptionError(
                f"there is no part {part!r}{close_matches_hint(part, PARTS) or '.'} Known: {', '.join(PARTS)}"
            )
    return chosen


def _check(asked: Asked) -> None:
    if asked.embedding not in METHODS:
        hint = close_matches_hint(asked.embedding, METHODS) or "."
        raise OptionError(f"there is no map {asked.embedding!r}{hint} Known: {', '.join(METHODS)}")
    if asked.repeats < 1:
        raise OptionError(f"repeats must be 1 or more, not {asked.repeats}")


# -- one run ----------------------------------------------------------------------------------------------------------


def _of_run(
    folder: Path,
    data: str | Path | Corpus | None,
    split: str | None,
    asked: Asked,
    device: str | None,
    options: dict[str, object],
    bar: Bar,
) -> Diagnosis:
    host, meta, corpus = prepare(folder, data, False, device, options)
    check_classes(corpus, meta, folder)
    split = split or _scored_split(corpus)
    part = corpus.at(corpus.split == split)
    predicted = predict_split(host, part, split, asked.batch_size)
    look = _Looked(host, corpus, part, split, predicted, asked, bar)
    for name in asked.parts:
        if not bar.on_terminal:
            bar.line(f"{folder.name}: {name}")
        with _left_out(look, name):
            _PARTS[name](look)
    result = read_result(folder)
    if result is not None and data is None and result["data"]["sha256"] != corpus_sha256(corpus):
        words = "the data have changed since this run was trained: what is said here is about the data as they are now"
        look.findings.append(Finding("data", words, grave=True))
    main = METRICS[MAIN]
    about = [
        f"{folder}: {len(predicted.rows)} labelled utterances of {len(set(predicted.dialogue.tolist()))} dialogues of "
        f"{corpus.name}, {split} split.",
        f"{main.short} {main.show(predicted.main)}.",
    ]
    title = f"Diagnosis of {model_title(meta['host'], meta['fusion'])}"
    return Diagnosis(title, about, look.findings, look.sections, look.left_out, folder, predicted.main)


def _scored_split(corpus: Corpus) -> str:
    labelled = corpus.split[corpus.label >= 0]
    return "test" if (labelled == "test").any() else "dev"


@contextmanager
def _left_out(look: _Looked, part: str) -> Iterator[None]:
    """What one part cannot do does not keep the others back; it is said why."""
    try:
        yield
    except FusionZooError as error:
        look.left_out[part] = str(error)


def _leaks(look: _Looked) -> None:
    if isinstance(look.whole, ClipCorpus):
        raise OptionError("recordings are not compared; make features of them first: fusionzoo extract")
    readers, shared = read_labels(look.whole, look.split), find_leaks(look.whole)
    words = [*(r.leak for r in readers if r.leak), *shared]
    too_high = "the score is too high by an unknown amount"
    look.findings += [Finding("leaks", f"leak: {leak}; {too_high}", grave=True) for leak in words]
    look.sections.append(pages.leak_section(readers, shared))


def _modalities(look: _Looked) -> None:
    if isinstance(look.corpus, ClipCorpus):
        raise OptionError(
            "the model reads recordings, which are not permuted; diagnose a model of features: fusionzoo extract"
        )
    if len(look.corpus.modalities) == 1:
        raise OptionError(f"there is only one modality: {', '.join(look.corpus.modalities)}")
    asked = look.options
    look.bar.start("modalities", steps_of(len(look.corpus.modalities), asked.repeats))
    use = modality_use(
        look.host,
        look.corpus,
        look.split,
        base=look.predicted,
        repeats=asked.repeats,
        seed=asked.seed,
        batch_size=asked.batch_size,
        step=lambda: look.bar.advance(1),
    )
    look.findings += use.findings()
    look.sections.append(pages.modality_section(use))


def _calibration(look: _Looked) -> None:
    found = calibration_of(look.predicted)
    look.findings += found.findings()
    look.sections.append(pages.calibration_section(found))


def _groups(look: _Looked) -> None:
    found = groups_of(look.predicted)
    look.findings += found.findings()
    look.sections.append(pages.group_section(found))


def _evidence(look: _Looked) -> None:
    if not is_demo(look.corpus):
        raise OptionError("only of data that `demo` generated is it known what evidence they hold")
    look.bar.start("evidence", predictions_needed())

    def predict(corpus: Corpus) -> Predicted:
        look.bar.advance(1)
        return predict_split(look.host, corpus, look.split, look.options.batch_size)

    found = evidence_use(look.predicted, predict)
    look.findings += found.findings()
    look.sections.append(pages.evidence_section(found))


def _attention(look: _Looked) -> None:
    found = attention_over(look.host, look.corpus, look.options.dialogue, look.split)
    if not found.maps:
        raise OptionError("the model reports no attention maps")
    look.sections.append(pages.attention_section(found))


def _embedding(look: _Looked) -> None:
    if not plots.have_plots():
        raise OptionError('the map is a picture, which needs matplotlib: pip install "fusionzoo[report]"')
    figure, count = embedding_figure(look.host, look.corpus, look.split, look.options.embedding, look.options.seed)
    look.sections.append(pages.embedding_section(figure, count, METHOD_NAMES[look.options.embedding]))


_PARTS: dict[str, Callable[[_Looked], None]] = {
    "leaks": _leaks,
    "modalities": _modalities,
    "calibration": _calibration,
    "groups": _groups,
    "evidence": _evidence,
    "attention": _attention,
    "embedding": _embedding,
}


def embedding_figure(host: Host, corpus: Corpus, split: str, method: str = "tsne", seed: int = 0) -> tuple[Any, int]:
    """The fused vectors of a split in the plane, coloured by class, and how many there are; of many, a random part."""
    vectors = fused_vectors(host, corpus, split)
    kept = np.arange(len(vectors.rows))
    if len(kept) > _MOST_POINTS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, _MOST_POINTS, replace=False))
    plane = in_the_plane(vectors.values[kept], method, seed)  # type: ignore[arg-type]
    labels = corpus.label[vectors.rows[kept]]
    return figures.embedding(plane, labels, corpus.label_names, METHOD_NAMES[method]), len(kept)


# -- a comparison -----------------------------------------------------------------------------------------------------


def _of_models(
    folder: Path,
    models: Sequence[Measured],
    data: str | Path | Corpus | None,
    split: str | None,
    asked: Asked,
    device: str | None,
    options: dict[str, object],
    quiet: bool,
) -> Diagnosis:
    diagnoses: dict[str, Diagnosis] = {}
    findings: list[Finding] = []
    left_out: dict[str, str] = {}
    for model in models:
        try:
            with Bar(enabled=not quiet, unit="predictions") as bar:
                found = _of_run(model.runs[0][0], data, split, asked, device, options, bar)
        except FusionZooError as error:  # a model that cannot be loaded does not keep the others back
            left_out[model.name] = str(error)
            continue
        found.write()
        diagnoses[model.name] = found
        if not quiet:
            print_line(f"{model.name}: {len(found.grave)} of {len(found.findings)} findings are grave")
        left_out |= {f"{part} of {model.name}": why for part, why in found.left_out.items() if part != "evidence"}
    shared = _said_of_all(diagnoses)
    findings += shared
    for name, found in diagnoses.items():
        known = {f.words for f in shared}
        findings += [Finding(f.part, f"{name}: {f.words}", f.grave) for f in found.grave if f.words not in known]
    section, front = pages.pareto_section(costs_of(models))
    scored = sorted((m for m in models if m.mean is not None), key=lambda m: -(m.mean or 0.0))
    about = [f"{folder}: {len(models)} models, {sum(len(m.runs) for m in models)} runs."]
    if scored:
        about.append(
            f"The best mean test {METRICS[MAIN].short} is that of {scored[0].name}, {points(scored[0].mean or 0.0)}."
        )
    sections = [pages.models_section(diagnoses), section] if diagnoses else [section]
    pages_of = {name: found.page for name, found in diagnoses.items()}
    return Diagnosis(
        "Diagnosis of a comparison", about, [*findings, *front], sections, left_out, folder, None, pages_of
    )


def _said_of_all(diagnoses: dict[str, Diagnosis]) -> list[Finding]:
    """Findings that every model shares, word for word, such as leaks of the data that all were trained on."""
    first, *others = [d.findings for d in diagnoses.values()] or [[]]
    words = [{f.words for f in other} for other in others]
    return [f for f in first if f.grave and others and all(f.words in w for w in words)]


def costs_of(models: Sequence[Measured]) -> dict[str, list[figures.Costed]]:
    """Name of a cost, and of the data where there are several, -> the models that have a score, with what they take."""
    out: dict[str, list[figures.Costed]] = {}
    several = len({m.runs[0][1]["data"]["sha256"] for m in models}) > 1
    for model in models:
        score, result = model.mean, model.runs[0][1]
        if score is None:
            continue
        on = f" ({result['data']['name']})" if several else ""  # scores on different data do not compare
        out.setdefault(f"parameters{on}", []).append(figures.Costed(model.name, float(result["parameters"]), score))
        if result["flops_per_utterance"] is not None:
            flops = result["flops_per_utterance"] / 1e6
            out.setdefault(f"MFLOPs per utterance{on}", []).append(figures.Costed(model.name, flops, score))
    return out
