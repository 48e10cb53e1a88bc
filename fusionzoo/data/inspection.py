"""What is in a data file, without running anything of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo._text import json_text, visible
from fusionzoo._types import ModalityFacts, Options, SplitSize
from fusionzoo.data._npz_columns import read_columns
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.leaks import Rows, shared_speakers
from fusionzoo.data.npz import read_npz, sha256, sha256_of
from fusionzoo.data.pickles import load_pickle, names_in
from fusionzoo.data.raw import read_raw, recognise
from fusionzoo.data.readers import FeatureReader, PickleReader, ReleaseReader, reader_for, readers_of
from fusionzoo.data.sources import corpus_of_pickle, file_kind, is_native
from fusionzoo.errors import DataError, UnsafePickleError

if TYPE_CHECKING:
    from rich.table import Table

# Every source line of the report, so that text and table cannot differ.
_Rows = list[tuple[str, str]]


@dataclass
class Inspection:
    """A report on one file or folder; a broken one has `problems` and whatever could still be found out.

    kind : `"npz"`, the name of the reader that knows the file or folder (`"classic-pickle"`, `"multiemo-folder"`, ...),
        `"pickle"` (readable, unknown layout), `"unsafe-pickle"` (names something other than arrays and plain containers),
        `"raw-iemocap"` and so on for the releases of `fusionzoo.data.raw`, or `"unknown"`.
    modalities : modality -> `{"width", "dtype" (as stored), "present" (utterances that have it)}`.
    labels : class -> utterances.
    splits : split -> `{"dialogues", "utterances"}`, as the file says; drawn ones are not here. Of a release: those that
        its reader makes, with `"labels"` (class -> utterances) too.
    folds : of a release, fold -> the same.
    missing : of a release, what it should have and of which nothing was found.
    media : of a release, `text`, `audio`, `video` and so on -> utterances that have it.
    speakers : `{"distinct", "largest_dialogue"}`.
    columns : all arrays of an `.npz`: name -> shape and dtype.
    names : everything that a pickle would import.
    notes : what a user of the file has to know.
    warnings : what may not be meant: rows of features that two splits share, columns like features that are not used.
    skipped : what reading the file leaves out, and why.
    problems : why the file, or a part of it, cannot be used.
    """

    path: str
    kind: str = "unknown"
    size_bytes: int = 0
    sha256: str = ""
    rows: int = 0
    dialogues: int = 0
    modalities: dict[str, ModalityFacts] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    splits: dict[str, SplitSize] = field(default_factory=dict)
    folds: dict[str, SplitSize] = field(default_factory=dict)
    media: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    speakers: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the file can be used as it is."""
        return not self.problems

    @property
    def is_raw(self) -> bool:
        """Whether these are recordings, of which features have to be made first."""
        return self.kind.startswith("raw-")

    def to_json(self, indent: int | None = 2) -> str:
        """The report as JSON."""
        facts = asdict(self) | {"ok": self.ok}
        return json_text(facts) if indent == 2 else json.dumps(facts, indent=indent)

    def _lines(self) -> _Rows:
        lines: _Rows = [("file", self.path), ("kind", self.kind)]
        if self.sha256:
            lines += [("size", f"{self.size_bytes:,} bytes"), ("sha256", self.sha256)]
        if self.rows:
            lines += [("utterances", f"{self.rows:,}"), ("dialogues", f"{self.dialogues:,}")]
        lines += [*self._contents(), *self._remarks(), ("verdict", self._verdict())]
        # Names come from the file: what would steer a terminal is spelt out.
        return [(visible(key), visible(value)) for key, value in lines]

    def _contents(self) -> _Rows:
        """What the file holds, counted."""
        lines: _Rows = []
        for m, facts in self.modalities.items():
            missing = self.rows - facts["present"]
            what = f"width {facts['width']}, {facts['dtype']}" + f", {missing} missing" * (missing > 0)
            lines.append((f"modality {m}", what))
        if self.labels:
            unlabelled = f", unlabelled {self.unlabelled}" * (self.unlabelled > 0)
            lines.append(("labels", ", ".join(f"{c} {n}" for c, n in self.labels.items()) + unlabelled))
        for medium, count in self.media.items():
            missing = self.rows - count
            lines.append((medium, f"{count:,} utterances" + f", {missing:,} missing" * (missing > 0)))
        lines += [(f"split {name}", _counts(n)) for name, n in self.splits.items()]
        lines += [(f"fold {name}", _counts(n)) for name, n in self.folds.items()]
        if self.speakers:
            distinct, largest = self.speakers["distinct"], self.speakers["largest_dialogue"]
            lines.append(("speakers", f"{distinct}, up to {largest} in a dialogue"))
        if others := [f"{c} {what}" for c, what in self.columns.items() if c not in self.modalities]:
            lines.append(("other columns", ", ".join(others)))
        if self.names:
            lines.append(("pickle names", ", ".join(self.names)))
        return lines

    def _remarks(self) -> _Rows:
        """What a user has to know of it, the worst last."""
        lines: _Rows = [("missing", f"{medium}: none was found") for medium in self.missing]
        lists = {"note": self.notes, "skipped": self.skipped, "WARNING": self.warnings, "PROBLEM": self.problems}
        said = [(key, remark) for key, remarks in lists.items() for remark in remarks]
        return lines + [(key, line.strip()) for key, remark in said for line in remark.split("\n")]

    def _verdict(self) -> str:
        if not self.ok:
            return f"not usable: {len(self.problems)} problem(s)"
        if self.is_raw and not self.media:
            return "readable, but no recording was found: `fusionzoo extract` would have nothing to read"
        if self.is_raw:
            return f"readable: `fusionzoo extract {self.path}` makes features of it"
        return f"usable, with {len(self.warnings)} warning(s)" if self.warnings else "sound"

    def __str__(self) -> str:
        lines = self._lines()
        width = max(len(key) for key, _ in lines)
        return "\n".join(f"{key:<{width}}  {value}" for key, value in lines)

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for key, value in self._lines():
            # Text, not markup: a file's own names may hold square brackets.
            table.add_row(Text(key, style="bold red" if key in ("PROBLEM", "WARNING") else ""), Text(value))
        return table


def _counts(n: SplitSize) -> str:
    labels = ", ".join(f"{name} {count}" for name, count in n.get("labels", {}).items())
    return f"{n['dialogues']} dialogues, {n['utterances']} utterances" + (f": {labels}" if labels else "")


def inspect(path: str | os.PathLike[str], reader: Options | None = None) -> Inspection:
    """Report on a file of features, or on the folder of a release.

    Never raises for what is wrong with it, and runs nothing of a pickle.

    Parameters
    ----------
    path : the file or folder.
    reader : of a release, options of its reader, as `fusionzoo extract --reader` takes them; an unknown one is an
        `OptionError`.
    """
    path = Path(path)
    report = Inspection(path=str(path))
    try:
        if path.exists() and not is_native(path):
            if found := reader_for(FeatureReader, path):
                _inspect_features(path, *found, report)
                return report
            if release := recognise(path):
                _inspect_release(path, release, report, reader or {})
                return report
        kind = file_kind(path)
        report.size_bytes, report.sha256 = path.stat().st_size, sha256(path)
        if kind == "npz":
            _inspect_npz(path, report)
        else:
            _inspect_pickle(path, report)
    except UnsafePickleError as error:
        report.kind = "unsafe-pickle"
        report.problems.append(str(error))
    except DataError as error:
        report.problems.append(str(error))
    except OSError as error:
        report.problems.append(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions."
        )
    return report


def _inspect_npz(path: Path, report: Inspection) -> None:
    report.kind = "npz"
    columns = read_columns(path)
    report.columns = {c: str(h) for c, h in columns.items()}
    _describe(read_npz(path), report)


def _inspect_pickle(path: Path, report: Inspection) -> None:
    report.kind = "pickle"
    try:
        report.names = names_in(path)
    except DataError:
        report.names = []  # the reader below says what is broken
    content = load_pickle(path)
    report.kind, _ = reader_for(PickleReader, content) or ("pickle", None)
    _describe(corpus_of_pickle(path, content), report)
    if "dev" not in report.splits and report.ok:
        report.skipped.append("there is no dev split: one is drawn from the train dialogues, or give split=...")


def _inspect_features(path: Path, layout: str, reader: FeatureReader, report: Inspection) -> None:
    report.kind = layout
    files = reader.files(path)
    report.size_bytes, report.sha256 = sum(f.stat().st_size for f in files), sha256_of(files)
    report.names = sorted({name for f in files if f.suffix.lower() == ".pkl" for name in names_in(f)})
    _describe(reader.read(path), report)


def _inspect_release(path: Path, release: str, report: Inspection, reader: Options) -> None:
    report.kind = f"raw-{release}"
    corpus = read_raw(path, release, **reader)
    summary = corpus.summary()
    report.rows, report.dialogues = summary["utterances"], summary["dialogues"]
    report.labels, report.unlabelled = summary["labels"], summary["unlabelled"]
    report.splits, report.folds, report.media = summary["splits"], summary["folds"], summary["media"]
    expected = readers_of(ReleaseReader)[release].media
    report.missing = [medium for medium in expected if medium not in report.media]
    # Counts are of the release's own dialogues: a corpus of single utterances has none.
    largest = max(len({u.speaker for u in rows}) for rows in corpus.dialogues().values())
    report.speakers = {"distinct": summary["speakers"], "largest_dialogue": largest}
    examples = {}
    for problem in corpus.problems:
        examples.setdefault((problem.reason, problem.dropped), []).append(problem)
    for (reason, dropped), problems in sorted(examples.items(), key=lambda item: -len(item[1])):
        what = "left out" if dropped else "not used"
        report.skipped.append(f"{reason}: {len(problems)} {what}, e.g. {problems[0]}")


def _describe(corpus: Corpus, report: Inspection) -> None:
    report.skipped += corpus.said("skipped")
    if views := corpus.text_views:
        report.notes.append(
            f"text is {views} views side by side: hosts that have the option get text_views={views} when training"
        )
    report.warnings += corpus.said("unused")
    report.skipped += [f"column {c!r}: not a modality, kept out of the model" for c in corpus.extras]
    report.problems += corpus.problems()
    stored = corpus.info.get("stored_dtypes")
    dtypes = stored if isinstance(stored, Mapping) else {}
    report.rows = len(corpus)
    for m, width in corpus.dims.items():
        present = int(np.count_nonzero(corpus.present[m])) if m in corpus.present else len(corpus)
        report.modalities[m] = {
            "width": width,
            "dtype": str(dtypes.get(m, corpus.features[m].dtype)),
            "present": present,
        }
    try:
        summary = corpus.summary()
    except (ValueError, IndexError, TypeError):
        return  # columns that do not fit together: the problems above say so, and counts would mean nothing
    report.dialogues = summary["dialogues"]
    report.labels, report.unlabelled = summary["labels"], summary["unlabelled"]
    report.splits, report.speakers = summary["splits"], summary["speakers"]
    if not report.problems:
        for shared in Rows(corpus).shared(corpus.split):
            (report.warnings if shared.leak else report.notes).append(shared.words)
        report.notes += [note] if (note := shared_speakers(corpus)) else []
