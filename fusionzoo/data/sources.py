"""From a name or a path to a sound `Corpus`."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionzoo._registry import registry
from fusionzoo.data._layouts import describe, hint
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.entries import corpus_of
from fusionzoo.data.leaks import warn_of_leaks
from fusionzoo.data.npz import read_npz
from fusionzoo.data.pickles import load_pickle
from fusionzoo.data.raw import recognise
from fusionzoo.data.readers import FeatureReader, PickleReader, check_options, known_layouts, options_of, reader_for
from fusionzoo.data.splits import ensure_dev, merged_dev, read_split
from fusionzoo.data.tables.rows import ENDINGS
from fusionzoo.errors import DataError, DataWarning, OptionError

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"Rar!": "rar",
    b"7z\xbc": "7z",
}
_ARRAYS = "take out the arrays and write an .npz with fusionzoo.data.save_npz"
#: How a file begins -> what it is, and what to do.
_MARKS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the data; run `git lfs pull` where it comes from",
    b"\x93NUMPY": "is a single .npy array; a corpus needs dialogue ids, labels and splits too: write an .npz",
    b"\x89HDF": f"is an HDF5 file; {_ARRAYS}",
    **{mark: f"is compressed ({name}); unpack it first" for mark, name in _PACKED.items()},
}
_FILE_OPTIONS = ("label_names", "name")


def load(
    source: str | os.PathLike[str],
    *,
    split: str | os.PathLike[str] | None = None,
    modalities: Sequence[str] | None = None,
    dev_fraction: float = 0.1,
    merge_dev: bool = False,
    split_seed: int = 0,
    **options: object,
) -> Corpus:
    """Read conversations and check them.

    Parameters
    ----------
    source : a file (`.npz`, or one of the pickles of `fusionzoo.data.classic`; told apart by content), a folder of
        MultiEMO's or M3NET's pickles, or the name of an installed dataset such as `demo`. A bare name that is a dataset's wins over a file; write `./demo` then.
    split : a file that says which dialogue is train, dev or test: an `.npz` corpus with the same dialogue ids, or JSON
        `{"train": [...], "dev": [...], "test": [...]}`. It must name exactly the corpus's dialogues.
    modalities : keep only these, in this order; None keeps all.
    dev_fraction, split_seed : where there is no dev split, this share of the train dialogues is drawn for it.
    merge_dev : count the dev dialogues as train before that, as many published trainings do.
    options : files: `label_names` (the classes, overriding the file's) and `name`; datasets: their own; with `media`, the
        source is a release that is read as clips, and they are those of `fusionzoo.data.clips.read_clips`.

    Raises
    ------
    DataError : the file is missing, broken or contradicts itself.
    UnsafePickleError : a pickle names something other than arrays and plain containers; nothing is executed.
    OptionError : an option that the source does not know.

    Examples
    --------
    >>> corpus = load("demo")  # doctest: +SKIP
    >>> corpus = load("features.pkl", split="official.json", modalities=["text", "audio"])  # doctest: +SKIP
    """
    dataset = _dataset_name(source)
    if dataset is not None:
        import fusionzoo

        if options.get("media") is not None:
            raise OptionError(
                f"data.media reads the recordings of a release, and {dataset!r} is a dataset of features; name the release's "
                "folder with --data"
            )
        corpus: Corpus = fusionzoo.get(dataset, kind="dataset")(**options)
    elif options.get("media") is not None:
        from fusionzoo.data.clips import read_clips

        words = ("release", "speakers", "random")
        if split is not None and str(split) in words and not Path(split).exists():  # a word of ESD's reader
            options, split = {**options, "split": str(split)}, None
        arguments: dict[str, Any] = options  # the reader says which it takes
        corpus, modalities = read_clips(source, modalities=modalities, **arguments), None
    else:
        corpus = read_file(source, keep_all=split is not None, **options)
    if modalities is not None:  # first, so that a broken modality that nobody asked for is no obstacle
        corpus = corpus.subset(modalities)
    corpus.validate()
    for note in corpus.said("unused"):
        warnings.warn(f"{corpus.source}: {note}", DataWarning, stacklevel=2)
    if split is not None:
        corpus = corpus.with_split(read_split(split), origin=f"split={split}")
        corpus.info = corpus.info | {"split": f"from {Path(split).name}"}
    corpus = ensure_dev(merged_dev(corpus) if merge_dev else corpus, dev_fraction, split_seed)
    warn_of_leaks(corpus)
    return corpus


def read_file(source: str | os.PathLike[str], *, keep_all: bool = False, **options: Any) -> Corpus:
    """Read a file of any known layout, its contents not yet validated and no dev split drawn.

    keep_all : the split will come from elsewhere, so accept a file whose own is incomplete.
    """
    path = Path(source)
    found = reader_for(FeatureReader, path) if path.exists() and not is_native(path) else None
    known = [*_FILE_OPTIONS, *(o for o in (options_of(found[1]) if found else ()) if o not in _FILE_OPTIONS)]
    check_options(f"{source}: a file of features", options, known)
    if found is not None:
        return found[1].read(path, keep_all=keep_all, **options)
    if path.is_dir() and (release := recognise(path)) is not None:
        hosts = ", ".join(registry.names_that("host", handles="clips"))
        raise DataError(
            f"{path}: is a folder, the release of {release}: recordings, no features. Make features first (`fusionzoo "
            f"extract {path} --out FOLDER`) and load those; or train a host that encodes recordings, whose recipe says "
            f"in data.media how they are read ({hosts or 'none is installed'})."
        )
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder, not a file, and none that is known. Expected a file in it, or one of the folders that are "
            f"read: {known_layouts(FeatureReader)}."
        )
    if file_kind(path) == "pickle":
        return corpus_of_pickle(path, load_pickle(path), keep_all=keep_all, **options)
    corpus = read_npz(path, needs_split=not keep_all, name=options.get("name"))
    if options.get("label_names") is not None:
        corpus.label_names = tuple(str(n) for n in options["label_names"])
    return corpus


def corpus_of_pickle(path: Path, content: Any, **options: Any) -> Corpus:
    """The corpus that the plain content of a pickle is, whose reader recognises it.

    Parameters
    ----------
    path : the pickle, for messages.
    content : what `load_pickle` made of it.
    options : `label_names`, `name` and `keep_all` of `fusionzoo.data.entries.corpus_of`.

    Raises
    ------
    DataError : no reader recognises the content, or it contradicts itself.
    """
    found = reader_for(PickleReader, content)
    if found is None:
        raise DataError(f"{path}: holds {describe(content)}. {hint(content)} Read are: {known_layouts(PickleReader)}.")
    layout, reader = found
    fields, notes = reader.entries(content, path)
    return corpus_of(path, layout, fields, notes=notes, positions=reader.positions(), **options)


def file_kind(path: Path) -> str:
    """`"npz"` or `"pickle"`, by the file's first bytes; a `DataError` that says what it is where it is neither."""
    what = _what_else(path)
    if what is not None:
        raise DataError(
            f"{path}: {what}. Expected an .npz corpus or one of the feature pickles (`fusionzoo data inspect FILE` "
            f"tells)."
        )
    with open(path, "rb") as stream:
        return "npz" if stream.read(2) == b"PK" else "pickle"


def is_native(path: Path) -> bool:
    """Whether a path is a file of the two kinds that fusionzoo itself tells apart: an `.npz` or a pickle."""
    return _what_else(path) is None


def _what_else(path: Path) -> str | None:
    """What a file is that is no data file, in words; None where it may be one."""
    if path.is_dir():
        return "is a folder, not a file; name the file in it"
    if not path.is_file():
        return "there is no such file; check the path"
    with open(path, "rb") as stream:
        head = stream.read(512)
    if not head:
        return "is empty; fetch it again"
    if marked := next((what for mark, what in _MARKS.items() if head.startswith(mark)), None):
        return marked
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, probably a download's error or consent page; fetch the file itself"
    if head.startswith(b"PK"):
        return f"is a torch checkpoint; {_ARRAYS}" if _is_checkpoint(path) else None
    return _what_by_name(path.suffix.lower(), head)


def _is_checkpoint(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n.endswith("/data.pkl") or n == "data.pkl" for n in archive.namelist())
    except Exception:  # damaged in whatever way: the .npz reader says how
        return False


def _what_by_name(suffix: str, head: bytes) -> str | None:
    # A pickle of protocol 2 and later begins with 0x80; text protocols with an opcode and end with a stop.
    if head[0] == 0x80 or suffix in (".pkl", ".pickle", ".p"):
        return None
    if suffix == ".npz":
        return "is damaged: it has no zip signature; fetch it again"
    if suffix in ENDINGS:
        return f"is a {suffix} file, which holds no feature matrices; if it is a table of utterances, make a corpus of it: fusionzoo data from-csv"
    if suffix == ".txt":
        return "is a .txt file, which holds no feature matrices"
    return "is neither a zip archive nor a pickle"


def _dataset_name(source: str | os.PathLike[str]) -> str | None:
    """`source` if it is to be looked up as a dataset: an installed one's name, or a bare word that is no file."""
    if not isinstance(source, str) or os.sep in source or "/" in source or Path(source).suffix:
        return None
    import fusionzoo
    from fusionzoo.specs import normalise_name

    if normalise_name(source) in fusionzoo.names("dataset") or not Path(source).exists():
        return source  # an unknown name gets the registry's answer: the closest ones, and what is installed
    return None
