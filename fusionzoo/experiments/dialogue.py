"""A dialogue of one's own through a trained run: encoded as the run's features were, predicted, and shown as a transcript."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fusionzoo._csv import csv_text
from fusionzoo._files import write_json, write_text
from fusionzoo.data.conventions import UNLABELLED
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.tables.rows import ENDINGS, TableLike
from fusionzoo.data.tables.table import Table, read_table
from fusionzoo.errors import DataError, FusionZooError, ModelError, OptionError, close_matches_hint
from fusionzoo.experiments.saved_runs import fit_modalities, load_run, probabilities_of
from fusionzoo.media import CONTAINERS
from fusionzoo.runs.config import RunConfig

if TYPE_CHECKING:
    from fusionzoo._file_schemas import FeatureCard, ModelFile

#: Modality -> the medium that it is made of.
_MEDIA = {"text": "text", "audio": "audio", "visual": "video"}
_SETTINGS = ("layer", "pooling", "normalise", "revision", "max_length", "seconds", "scale", "frames", "picture")
_EACH = ("layer", "pooling", "normalise", "revision")


@dataclass(frozen=True)
class Line:
    """One utterance of a transcript.

    confidence : the model's probability of the emotion, uncalibrated.
    """

    dialogue: str
    utterance: str
    speaker: str
    start: float | None
    end: float | None
    text: str
    emotion: str
    confidence: float
    probabilities: dict[str, float]


@dataclass(frozen=True, eq=False)
class Transcript:
    """A dialogue with what a model says of every utterance.

    run : the run folder.
    lines : the utterances in order.
    notes : how the dialogue was read and encoded, and what it lacks.
    """

    run: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*self._lines(), *(f"note: {n}" for n in self.notes)])

    def _lines(self) -> list[str]:
        cells = [(_clock(u.start), u.speaker, u.emotion, f"{u.confidence:.2f}", u.text) for u in self.lines]
        widths = [max((len(row[i]) for row in cells), default=0) for i in range(4)]
        several = len({u.dialogue for u in self.lines}) > 1
        out: list[str] = []
        before = None
        for row, u in zip(cells, self.lines, strict=True):
            if several and u.dialogue != before:
                out.append(f"-- {u.dialogue}")
            before = u.dialogue
            out.append("  ".join([*(c.ljust(w) for c, w in zip(row[:4], widths, strict=True) if w), row[4]]).rstrip())
        return out

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as `.csv` or `.json`."""
        path = Path(path)
        _check_target(path)
        if path.suffix.lower() == ".json":
            write_json(
                path, {"run": self.run, "notes": list(self.notes), "utterances": [asdict(u) for u in self.lines]}
            )
            return path
        classes = list(self.lines[0].probabilities)
        header = ["dialogue", "utterance", "speaker", "start", "end", "text", "emotion", "confidence"]
        rows = [
            [*(getattr(u, name) for name in header), *(f"{u.probabilities[c]:.6f}" for c in classes)]
            for u in self.lines
        ]
        write_text(path, csv_text([*header, *(f"p_{c}" for c in classes)], rows))
        return path


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes):02d}:{rest:04.1f}"


def _check_target(path: Path) -> None:
    if path.suffix.lower() not in (".csv", ".json"):
        raise OptionError(f"{path}: a transcript is written as .csv or .json; end the name so")


def predict_dialogue(
    run: str | Path,
    dialogue: TableLike,
    *,
    out: str | Path | None = None,
    audio: str | Path | None = None,
    video: str | Path | None = None,
    columns: Mapping[str, str | None] | None = None,
    features: Mapping[str, str] | None = None,
    models: Mapping[str, str | os.PathLike[str]] | None = None,
    allow_missing: bool = False,
    device: str | None = None,
    batch_size: int = 16,
) -> Transcript:
    """Emotions of every utterance of somebody's dialogue; it needs no labels, no splits and no names of classes.

    Parameters
    ----------
    run : a run folder.
    dialogue : a table (csv, JSON, subtitles, pandas, a list of dicts, see `fusionzoo.data.read_table`), or a recording and its
        transcript, `"talk.wav+talk.srt"`.
    out : a `.csv` or `.json` file to write.
    audio, video : a recording of the whole dialogue, of which the rows have their start and end.
    columns : what the table's columns say, over what their names tell.
    features : modality -> column of the table's own features; what it has is not encoded.
    models : modality -> folder of the model with which the run's features were made, where that was a folder.
    allow_missing : whether a modality may be missing; the fusion's `missing=` then stands in for it.
    device : `None` or `auto` for a GPU where there is one.
    batch_size : dialogues at a time; rounding apart, no probability depends on it.

    Raises
    ------
    DataError : the table is wrong, or a modality is missing; says how to get it.
    ModelError : a model that encodes cannot be had, or is another one than the run's.
    """
    if out is not None:
        _check_target(Path(out))
    host, meta = load_run(run, device)
    source, recordings = _parts(dialogue)
    recordings |= {m: p for m, p in (("audio", audio), ("video", video)) if p is not None}
    table = read_table(
        source, columns=columns, features=features, audio=recordings.get("audio"), video=recordings.get("video")
    )
    clips = _clip_media(run)
    if clips is not None:
        corpus = _clips(source, table, clips, recordings, columns)
    else:
        corpus = _encoded(run, table, meta, models or {}, allow_missing, device)
    corpus = fit_modalities(corpus, meta, run, allow_missing)
    found = np.zeros((len(corpus), len(meta["label_names"])), np.float32)
    for split in dict.fromkeys(corpus.split.tolist()):
        rows, probabilities = probabilities_of(host, corpus, split, batch_size)
        found[rows] = probabilities
    names = [str(i) for i in np.asarray(corpus.utterance_id).tolist()]
    transcript = Transcript(
        str(run), _lines(table, meta["label_names"], dict(zip(names, found, strict=True))), _notes(table, corpus, meta)
    )
    if out is not None:
        transcript.save(out)
    return transcript


def _lines(table: Table, classes: list[str], found: Mapping[str, np.ndarray]) -> tuple[Line, ...]:
    lines = []
    for u in table.utterances:
        if u.id not in found:
            continue
        p = found[u.id]
        best = int(p.argmax())
        lines.append(
            Line(
                u.dialogue_id, u.id, u.speaker, u.audio_start, u.audio_end, u.text or "", classes[best], float(p[best]),
                {c: float(x) for c, x in zip(classes, p, strict=True)},
            )
        )  # fmt: skip
    return tuple(lines)


def _notes(table: Table, corpus: Corpus, meta: ModelFile) -> tuple[str, ...]:
    notes = [n for n in table.notes if not n.startswith(("no column of labels", "no column of splits"))]
    for m in meta["dims"]:
        if m not in corpus.dims:
            notes.append(f"{m}: missing everywhere; the fusion stands in for it")
        elif m in corpus.present and not corpus.present[m].all():
            notes.append(f"{m}: missing for {int((~corpus.present[m]).sum())} utterances; the fusion stands in for it")
    left = len(table.utterances) - len(corpus)
    return (*notes, *([f"{left} utterances were left out: nothing of them could be read"] if left else []))


def _parts(dialogue: Any) -> tuple[Any, dict[str, str | Path]]:
    """What holds the utterances, and the recordings of `a.wav+b.srt`."""
    if not isinstance(dialogue, str | os.PathLike) or Path(dialogue).exists():
        paths = [dialogue]
    else:
        paths = [part.strip() for part in str(dialogue).split("+") if part.strip()]
    tables = [p for p in paths if not isinstance(p, str | os.PathLike) or Path(p).suffix.lower() in ENDINGS]
    others = [Path(p) for p in paths if p not in tables] if len(tables) != len(paths) else []
    if len(tables) != 1 or len(others) > 2:
        raise DataError(
            f"{dialogue}: expected a table of utterances ({', '.join(ENDINGS)}), or a recording and its transcript, such as "
            "talk.wav+talk.srt. Words and times of a recording come from a speech recogniser; none is in fusionzoo."
        )
    recordings: dict[str, str | Path] = {}
    for path in others:
        if path.suffix.lower() in CONTAINERS:
            recordings |= {"audio": recordings.get("audio", path), "video": path}
        else:
            recordings["audio"] = path
    return tables[0], recordings


# ---------------------------------------------------------------------- features


def _encoded(
    run: str | Path,
    table: Table,
    meta: ModelFile,
    models: Mapping[str, str | os.PathLike[str]],
    allow_missing: bool,
    device: str | None,
) -> Corpus:
    """The table's own features, and those made as the run's were."""
    for modality in models:
        if modality not in meta["dims"]:
            raise OptionError(
                f"the model in {str(run)!r} knows no {modality!r}{close_matches_hint(modality, meta['dims']) or '.'} It knows: "
                f"{', '.join(meta['dims'])}"
            )
    cards = meta.get("features") or _cards_of_data(run)
    chosen: dict[str, str | os.PathLike[str]] = {}
    lacking: list[str] = []
    for modality in meta["dims"]:
        if modality in table.vectors:
            continue
        why = _why_not(table, modality, cards.get(modality), models.get(modality))
        if why is None:
            chosen[modality] = models.get(modality, cards[modality]["model"])
        else:
            lacking.append(why)
    have = len(meta["dims"]) - len(lacking)
    if lacking and (not allow_missing or not have):
        way = " Or have the fusion stand in for it: --allow-missing (in Python allow_missing=True)." if have else ""
        raise DataError(
            f"{table.source}: the model in {str(run)!r} needs what this dialogue lacks: {'; '.join(lacking)}.{way}"
        )
    made = _extracted(table, chosen, cards, device) if chosen else None
    return _joined(table, meta, made)


def _why_not(table: Table, modality: str, card: FeatureCard | None, model: str | os.PathLike[str] | None) -> str | None:
    """Why a modality cannot be encoded and what to do; None where it can."""
    own = f"a column of features in the table ({modality}_0, ... or --features {modality}=COLUMN)"
    medium = _MEDIA.get(modality)
    if card is None:
        return f"{modality}: the run's features were made elsewhere, so that none can be made here; give {own}"
    if medium is None or not any(u.has(medium) for u in table.utterances):
        return (
            f"{modality}: made by {card['model']} of {medium}, of which there is none; give a column {medium}, or {own}"
        )
    if model is None and card.get("revision") is None and not Path(card["model"]).is_dir() and "/" not in card["model"]:
        digest = next((v[:12] for k, v in (card.get("sha256") or {}).items() if "model" in k), "unknown")
        return (
            f"{modality}: made by a model in a folder {card['model']!r} (weights sha256 {digest}...); say where it is: --encoder "
            f"{modality}=FOLDER (in Python models={{'{modality}': folder}})"
        )
    return None


def _cards_of_data(run: str | Path) -> dict[str, FeatureCard]:
    """The card of the run's data, for runs that are older than the card in `model.json`."""
    from fusionzoo.data import load

    stored = Path(run) / "config.yaml"
    try:
        made = load(RunConfig.load(stored).data.source).info.get("extraction") if stored.exists() else None
    except FusionZooError:
        return {}
    cards: Any = made.get("features") if isinstance(made, Mapping) else None
    return dict(cards) if isinstance(cards, Mapping) else {}


def _extracted(
    table: Table, chosen: Mapping[str, str | os.PathLike[str]], cards: Mapping[str, FeatureCard], device: str | None
) -> Corpus:
    """Features of the chosen modalities, with the settings of the cards."""
    from fusionzoo.data.npz import read_npz
    from fusionzoo.encoders.pretrained import find_model
    from fusionzoo.extraction.run import extract

    settings: dict[str, Any] = {}
    for modality, model in chosen.items():
        card = cast(Mapping[str, Any], cards[modality])
        expected, now = card.get("sha256") or {}, find_model(model, card.get("revision")).fingerprint()
        if other := [name for name, digest in expected.items() if now.get(name) != digest]:
            raise ModelError(
                f"{os.fspath(model)}: is another model than the one that made the run's {modality}: {', '.join(other)} differ. Name the "
                f"folder of {card['model']}."
            )
        for name in _SETTINGS:
            if card.get(name) is not None:
                if name in _EACH:
                    settings.setdefault(name, {})[_MEDIA[modality]] = card[name]
                else:
                    settings[name] = card[name]
    media = {_MEDIA[modality]: model for modality, model in chosen.items()}
    with tempfile.TemporaryDirectory() as folder:
        done = extract(
            table.recordings(), out=folder, name="dialogue", quiet=True, device=device or "auto", **media, **settings
        )
        for modality, failed in done.failed.items():
            table.notes.extend(f"{modality}: {row['reason']}" for row in failed)
        return read_npz(done.path)


def _joined(table: Table, meta: ModelFile, made: Corpus | None) -> Corpus:
    """The features of the table and those that were made, of the utterances that have any."""
    ids = [u.id for u in table.utterances]
    features, present = dict(table.vectors), dict(table.present)
    if made is not None:
        place = {name: row for row, name in enumerate(np.asarray(made.utterance_id).tolist())}
        rows = np.array([place.get(name, -1) for name in ids])
        for modality, x in made.features.items():
            there = made.present.get(modality, np.ones(len(made), dtype=bool))
            present[modality] = (rows >= 0) & there[rows]
            features[modality] = np.where(present[modality][:, None], x[rows], np.float32(0))
    wanted = [m for m in meta["dims"] if m in features]
    keep = np.any([present[m] for m in wanted], axis=0)
    if not keep.any():
        raise DataError(f"{table.source}: nothing of any utterance could be read")
    base = replace(table, vectors={m: features[m] for m in wanted}, present={m: present[m] for m in wanted}).corpus()
    return replace(base.at(keep), label=np.full(int(keep.sum()), UNLABELLED), label_names=tuple(meta["label_names"]))


# ---------------------------------------------------------------------- hosts that encode recordings themselves


def _clip_media(run: str | Path) -> Mapping[str, Any] | None:
    """How the run reads recordings, where its host encodes them."""
    stored = Path(run) / "config.yaml"
    media = RunConfig.load(stored).data.options.get("media") if stored.exists() else None
    return media if isinstance(media, Mapping) else None


def _clips(
    source: Any,
    table: Table,
    media: Mapping[str, Any],
    recordings: Mapping[str, str | Path],
    columns: Mapping[str, str | None] | None,
) -> Corpus:
    """The recordings as they are; every utterance stands alone, as in training."""
    from fusionzoo.data.clips import read_clips

    if table.path is None:
        raise DataError("this run's host encodes recordings, which a file has to name: give a csv or JSON file")
    asked: Any = {f"{medium}_file": str(path) for medium, path in recordings.items()} | {
        k: v for k, v in (columns or {}).items() if v
    }
    return read_clips(source, media, kind="table", partial=True, **asked)
