"""Readers: each knows one layout of files, and the registry says which there are.

A reader is a plugin of kind `"reader"` (entry points `fusionzoo.readers`), derived from the base class that says what it is
asked about and what it gives:

=================  ============================================  ===================================================
`ReleaseReader`    a folder of recordings, as authors release it  a `RawCorpus`, for `fusionzoo.data.raw.read_raw`
`FeatureReader`    a folder or file of features                   a `Corpus`, for `fusionzoo.data.load`
`PickleReader`     the plain content of a pickle                  its entries by name, for `fusionzoo.data.load`
=================  ============================================  ===================================================

Nothing here opens a file: `fusionzoo.data.load`, `inspect` and `read_raw` do, and ask the readers what it is.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fusionzoo._installed import described
from fusionzoo._registry import registry
from fusionzoo.errors import FusionZooWarning, OptionError, close_matches_hint

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.data.raw.corpus import RawCorpus


class Reader:
    """What every reader has; derive from one of the three below.

    A reader holds nothing; its methods may be static, of the class or of an instance. `read`'s keyword arguments are its options, and its card shows them.
    """

    kind: ClassVar[str] = "reader"
    handles: ClassVar[frozenset[str]] = frozenset()
    #: Readers are asked in this order, then by name, and the first that recognises something reads it.
    precedence: ClassVar[int] = 100
    #: What it reads and how to tell, in a few words: for the message that nobody recognises something.
    looks_like: ClassVar[str] = ""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if callable(read := getattr(cls, "read", None)):
            parameters = inspect.signature(read).parameters.values()
            shown: Any = cls
            shown.__signature__ = inspect.Signature([p for p in parameters if p.name != "self"])


class ReleaseReader(Reader):
    """Reads a corpus as its authors release it: recordings, transcripts, labels."""

    handles = frozenset({"recordings"})
    #: What a whole release has of `"text"`, `"audio"` and `"video"`, so that what is missing can be told.
    media: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def recognise(path: Path, /) -> bool:
        """Whether a folder (or the file that lists one) is this release; opens no recording and never raises."""
        raise NotImplementedError

    @staticmethod
    def read(root: Path, /) -> RawCorpus:
        """The release; a `DataError` where nothing in it is usable."""
        raise NotImplementedError


class FeatureReader(Reader):
    """Reads a folder of features, or a file that is neither an `.npz` nor a pickle."""

    handles = frozenset({"features"})

    @staticmethod
    def recognise(path: Path, /) -> bool:
        """Whether this is its layout, by names and first bytes; never raises."""
        raise NotImplementedError

    @staticmethod
    def files(path: Path, /) -> tuple[Path, ...]:
        """The files that reading uses; their checksum is the corpus's."""
        return (path,)

    @staticmethod
    def read(
        path: Path,
        /,
        *,
        label_names: Collection[str] | None = None,
        name: str | None = None,
        keep_all: bool = False,
    ) -> Corpus:
        """The corpus, not yet validated and without a dev split where the files have none.

        Parameters
        ----------
        path : what was recognised.
        label_names : the classes, over those that the files name.
        name : the corpus's; None takes the path's.
        keep_all : keep dialogues that the files put in no split, because the split will come from elsewhere.
        """
        raise NotImplementedError


class PickleReader(Reader):
    """Takes the content of a pickle apart; `fusionzoo.data.pickles.load_pickle` has read it and left plain values only."""

    handles = frozenset({"pickles"})

    @staticmethod
    def recognise(content: object, /) -> bool:
        """Whether this is its layout; never raises."""
        raise NotImplementedError

    @staticmethod
    def entries(content: object, path: Path, /) -> tuple[dict[str, object], list[str]]:
        """The entries by name, as `fusionzoo.data.entries` takes them, and notes on what was left out.

        Parameters
        ----------
        content : what was recognised.
        path : the file, for messages.
        """
        raise NotImplementedError

    @staticmethod
    def positions() -> Mapping[str, int]:
        """Where each entry stands in the file, for messages; empty where it has no place."""
        return {}


_R = TypeVar("_R", bound=Reader)


def readers_of(base: type[_R]) -> dict[str, _R]:
    """Name -> reader of the installed ones of a base class, in the order in which they are asked.

    One that fails to load is left out with a warning.
    """
    made: dict[str, _R] = {}
    (capability,) = base.handles
    for name in registry.names_that("reader", handles=capability):
        reader: Any = registry.get(name, "reader")
        reader = reader() if isinstance(reader, type) else reader
        if not isinstance(reader, base):
            warnings.warn(
                f"the reader {name!r} is no {base.__name__}, although its card's handles say so, and is left out; derive it "
                f"from fusionzoo.data.{base.__name__}",
                FusionZooWarning,
                stacklevel=2,
            )
            continue
        made[name] = reader
    return dict(sorted(made.items(), key=lambda item: (item[1].precedence, item[0])))


def reader_for(base: type[_R], what: Any) -> tuple[str, _R] | None:
    """Name and reader of the first that recognises a path, or the content of a pickle; None where nobody does."""
    for name, reader in readers_of(base).items():
        try:
            recognised = reader.recognise(what)  # type: ignore[attr-defined]
        except Exception as error:  # somebody else's code; whatever it raises, the others are asked
            shown = f"{what}" if isinstance(what, Path) else f"a {type(what).__name__}"
            warnings.warn(
                f"the reader {name!r} failed to look at {shown} and is passed over: {described(error)}. Its recognise() "
                "should return False for what it does not know.",
                FusionZooWarning,
                stacklevel=2,
            )
            continue
        if recognised:
            return name, reader
    return None


def known_layouts(base: type[Reader]) -> str:
    """What the installed readers of a base class read, for a message."""
    known = [reader.looks_like or name for name, reader in readers_of(base).items()]
    return "; ".join(known) or "nothing: no reader of it is installed (see fusionzoo plugins --kind reader)"


def options_of(reader: Reader) -> list[str]:
    """Names of the options that a reader's `read` takes."""
    parameters = inspect.signature(reader.read).parameters.values()  # type: ignore[attr-defined]
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "keep_all"]


def check_options(what: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise `OptionError` for an option that is not known.

    Parameters
    ----------
    what : who takes the options, as the message begins.
    given : names of those that are given.
    known : names of those that it takes.
    """
    for option in given:
        if option not in known:
            raise OptionError(
                f"{what} has no option {option!r}{close_matches_hint(option, known) or '.'} Options: {', '.join(known)}."
            )
