"""Checks of a dataset: what a call of it gives is a sound corpus that a run can train and test on."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from fusionzoo._registry import registry
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.loading import split_of
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.runs.data_section import corpus_sha256
from fusionzoo.testing.comparisons import refuses
from fusionzoo.testing.runner import fail, rules

rule = rules("dataset", theme="data", needs=("loads",))


class DatasetSubject:
    """A dataset: a callable that returns a `Corpus`. options : what it is called with."""

    kind = "dataset"

    def __init__(self, dataset: Any, *, options: Any = None):
        self.spec = None
        if isinstance(dataset, str):
            self.spec, _ = registry.spec(dataset, self.kind)
            dataset = registry.get(dataset, self.kind)
        if not callable(dataset):
            raise OptionError(f"a dataset is a name or a callable that returns a Corpus, not {type(dataset).__name__}")
        self.cls, self.options = dataset, dict(options or {})
        self.name = self.spec.name if self.spec else getattr(dataset, "__name__", type(dataset).__name__)
        self._corpus: Corpus | None = None

    @property
    def label(self) -> str:
        """For the table's title."""
        return f"dataset {self.name}"

    def variants(self) -> list[DatasetSubject]:
        """A dataset is checked under the one set of options that it got."""
        return [self]

    def describe(self) -> str:
        """The options in force, empty for none."""
        return ", ".join(f"{k}={v!r}" for k, v in self.options.items())

    @property
    def corpus(self) -> Corpus:
        """What a call returns; made once."""
        made: Any = self._corpus
        if made is None:
            build: Any = self.cls
            self._corpus = made = build(**self.options)
        return made


@rule(needs=())
def loads(subject):
    """A call without further arguments returns a Corpus."""
    if not isinstance(subject.corpus, Corpus):
        fail(f"it returns {type(subject.corpus).__name__}", "return a fusionzoo.data.Corpus")


@rule()
def validates(subject):
    """The corpus is sound: `Corpus.validate` finds nothing."""
    try:
        subject.corpus.validate()
    except FusionZooError as error:
        fail(f"validate() refuses the corpus: {error}", "repair the columns that it names")


@rule()
def splits_labelled(subject):
    """Train and test have labelled utterances, so that something can be learnt and judged."""
    corpus = subject.corpus
    for split in ("train", "test"):
        if not ((corpus.split == split) & (corpus.label >= 0)).any():
            fail(f"no utterance of the {split} split has a label", f"assign labelled dialogues to {split}")


@rule()
def classes_used(subject):
    """Every class has an utterance in the train split."""
    corpus = subject.corpus
    labels = corpus.label[(corpus.split == "train") & (corpus.label >= 0)]
    unused = [n for i, n in enumerate(corpus.label_names) if not (labels == i).any()]
    if unused:
        fail(f"no utterance of train is {unused[0]!r}", "leave the class out of label_names, or give it examples")


@rule()
def repeatable(subject):
    """Another call returns the same corpus, bit for bit: a resumed run compares hashes."""
    if corpus_sha256(subject.cls(**subject.options)) != corpus_sha256(subject.corpus):
        fail("a second call returns other data", "draw random numbers from a generator with a seed of its own")


@rule()
def batches(subject):
    """The dialogues of the train split make batches with finite features and labels that are classes."""
    corpus = subject.corpus
    for batch in split_of(corpus, "train", "cpu").batches(8, shuffle=False, seed=0, epoch=0):
        for name, x in batch.features.items():
            if not np.isfinite(x.numpy()).all():
                fail(f"the features of {name!r} hold NaN or infinity", "replace them, or mark them as not present")
        labels = batch.labels[batch.mask & (batch.labels >= 0)]
        if len(labels) and int(labels.max()) >= corpus.num_classes:
            fail(
                f"there is the label {int(labels.max())} for {corpus.num_classes} classes", "number the classes from 0"
            )


@rule(needs=())
def unknown_option_refused(subject):
    """An unknown option raises a FusionZooError or TypeError that names it, instead of being swallowed."""
    try:
        subject.cls(**subject.options, no_such_option=1)
    except TypeError as error:
        if "no_such_option" in str(error):
            return
    except FusionZooError:
        refuses(
            lambda: subject.cls(**subject.options, no_such_option=1),
            FusionZooError,
            "an unknown option",
            ("no_such_option",),
        )
        return
    fail("the unknown option no_such_option=1 is accepted", "do not take **kwargs, or check them")


@rule(needs=())
def described(subject):
    """The dataset has a docstring, and its spec a summary of one line."""
    if not (inspect.getdoc(subject.cls) or "").strip():
        fail("it has no docstring", "say what the data are and what every option does")
    summary = "" if subject.spec is None else subject.spec.summary
    if subject.spec is not None and (not summary.strip() or "\n" in summary or len(summary) > 120):
        fail(f"the summary is {summary!r}", "give Spec(summary=...) one short line")
