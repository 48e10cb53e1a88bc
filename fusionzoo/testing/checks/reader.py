"""Checks of a reader: it knows its own layout and nothing else, and its options can be asked for."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fusionzoo._registry import registry
from fusionzoo.data.raw.corpus import MEDIA
from fusionzoo.data.readers import FeatureReader, PickleReader, ReleaseReader
from fusionzoo.errors import DataError, OptionError
from fusionzoo.testing.comparisons import refuses
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("reader", theme="reader", needs=("derives",))

BASES = (ReleaseReader, FeatureReader, PickleReader)
#: Contents of pickles that are no layout of anything.
STRANGE: tuple[Any, ...] = (
    None,
    5,
    "text",
    (),
    [],
    {},
    {"train": 3},
    (1, 2, 3),
    [np.zeros(3)],
    {"a": {"b": np.zeros(2)}},
)


class ReaderSubject:
    """A reader by its name, its class, or an instance."""

    kind = "reader"

    def __init__(self, reader: Any, *, options: Any = None):
        if options:
            raise OptionError("a reader is checked as it is; it takes no options")
        self.spec = None
        if isinstance(reader, str):
            self.spec, _ = registry.spec(reader, self.kind)
            reader = registry.get(reader, self.kind)
        self.cls: Any = reader if isinstance(reader, type) else type(reader)
        self.reader: Any = reader() if isinstance(reader, type) else reader
        self.name = self.spec.name if self.spec else self.cls.__name__

    @property
    def label(self) -> str:
        """For the table's title."""
        return f"reader {self.name}"

    def variants(self) -> list[ReaderSubject]:
        """A reader is checked as it is."""
        return [self]

    def describe(self) -> str:
        """No options."""
        return ""


@rule(needs=())
def derives(subject):
    """It derives from ReleaseReader, FeatureReader or PickleReader."""
    if not issubclass(subject.cls, BASES):
        fail(
            f"{subject.cls.__name__} derives from none of them",
            f"derive it from {' or '.join(b.__name__ for b in BASES)}",
        )


@rule()
def docstring_present(subject):
    """The class has a docstring of its own that says what it reads."""
    text = inspect.cleandoc(vars(subject.cls).get("__doc__") or "")
    if len(text.partition("\n")[0]) < 10:
        fail(f"the first line of its docstring is {text[:40]!r}", "say in one line whose layout it reads")


@rule()
def passes_over_what_it_does_not_know(subject):
    """recognise() is False, and raises nothing, for what is certainly not its layout."""
    if issubclass(subject.cls, PickleReader):
        for content in STRANGE:
            _not_recognised(subject, content, f"{content!r}")
        return
    with tempfile.TemporaryDirectory() as folder:
        empty, other, text, noise = (Path(folder) / n for n in ("empty", "other", "words.txt", "noise.bin"))
        empty.mkdir()
        other.mkdir()
        (other / "readme.txt").write_text("nothing of the kind")
        text.write_text("")
        noise.write_bytes(bytes(range(256)))
        for path in (Path(folder) / "nowhere", empty, other, text, noise):
            _not_recognised(subject, path, f"the path {path.name!r}")


def _not_recognised(subject: ReaderSubject, what: Any, words: str) -> None:
    try:
        answer = subject.reader.recognise(what)
    except Exception as error:
        fail(f"recognise() of {words} raises {describe_error(error)}", "return False for what it does not know")
    if answer:
        fail(f"it recognises {words}", "look for more of the layout, so that other readers get their turn")


@rule()
def refuses_another_layout(subject):
    """A release that it is told to read, and is another's, is refused with a DataError that names it."""
    if not issubclass(subject.cls, ReleaseReader):
        skip("only a release can be read by the name of its reader")
    with tempfile.TemporaryDirectory() as folder:
        refuses(lambda: subject.reader.read(Path(folder)), DataError, "an empty folder", (folder,))


@rule()
def options_by_name(subject):
    """Options are keyword arguments with defaults, so that they can be given one by one."""
    if issubclass(subject.cls, PickleReader):
        skip("a layout of pickles has no options of its own")
    parameters = list(inspect.signature(subject.reader.read).parameters.values())
    bad = [
        p.name
        for p in parameters[1:]
        if p.kind is not p.VAR_KEYWORD and (p.kind is not p.KEYWORD_ONLY or p.default is p.empty)
    ]
    if bad:
        fail(
            f"read() takes {', '.join(bad)} by position or without a default", "put them after a `*` and give defaults"
        )


@rule()
def media_named(subject):
    """A release says which of text, audio and video a whole one has."""
    if not issubclass(subject.cls, ReleaseReader):
        skip("features are no recordings")
    media = subject.cls.media
    if not media or not set(media) <= set(MEDIA):
        fail(f"media is {media!r}", f"set it to some of {', '.join(MEDIA)}")
