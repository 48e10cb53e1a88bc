"""A release as a corpus of clips: a `Corpus` whose features are recordings that have not been opened."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from fusionzoo.data.clips.media import Medium, read_media
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.raw import RawCorpus, RawUtterance, read_raw, release_name
from fusionzoo.data.readers import ReleaseReader, options_of, readers_of
from fusionzoo.errors import ConfigError, DataError, OptionError, close_matches_hint


@dataclass(eq=False, repr=False)
class ClipCorpus(Corpus):
    """N utterances, each a dialogue of its own, whose media are read when a batch is made.

    media : modality -> how it is read.
    clips : the N utterances, in the order of the rows.
    widths : modality -> width of a step.
    workers : threads that read ahead; 0 reads when a batch is asked for.
    keep : keep in memory what was read.
    """

    media: dict[str, Medium] = field(default_factory=dict)
    clips: tuple[RawUtterance, ...] = ()
    widths: dict[str, int] = field(default_factory=dict)
    workers: int = 0
    keep: bool = False

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the media, in order."""
        return tuple(self.media)

    @property
    def dims(self) -> dict[str, int]:
        """Modality -> width of a step."""
        return dict(self.widths)

    def at(self, rows: np.ndarray) -> Self:
        """The corpus of some utterances alone, with their recordings."""
        kept = np.arange(len(self))[rows].tolist()
        return replace(super().at(rows), clips=tuple(self.clips[row] for row in kept))

    def subset(self, modalities: Sequence[str]) -> ClipCorpus:
        """The same corpus with these modalities only, in this order."""
        wanted = list(modalities)
        for name in wanted:
            if name not in self.media:
                raise DataError(
                    f"{self.source}: data.media has no modality {name!r}{close_matches_hint(name, self.modalities) or '.'} "
                    f"It has: {', '.join(self.modalities)}."
                )
        if not wanted or len(set(wanted)) != len(wanted):
            raise DataError(f"modalities={wanted!r}: name one or more of {', '.join(self.modalities)}, each once.")
        return replace(
            self,
            media={m: self.media[m] for m in wanted},
            widths={m: self.widths[m] for m in wanted},
            present={m: self.present[m] for m in wanted if m in self.present},
        )

    def problems(self) -> list[str]:
        """None: the reader has checked the columns, and recordings are opened one by one."""
        return []

    def sha256(self) -> str:
        """Hash of what can change a run without opening recordings: names and sizes of files, words, labels and split."""
        digest = hashlib.sha256(repr(sorted(self.media.items())).encode())
        for u, label, split in zip(self.clips, self.label.tolist(), self.split.tolist(), strict=True):
            sizes = [medium.num_bytes(u) for medium in self.media.values()]
            span = (u.start, u.end, u.audio_start, u.audio_end, u.crop)
            digest.update(repr((u.id, u.speaker, u.text, sizes, span, label, split)).encode())
        digest.update("\0".join(self.label_names).encode())
        return digest.hexdigest()


def read_clips(
    source: str | os.PathLike[str],
    media: Mapping[str, Any],
    *,
    kind: str | None = None,
    modalities: Sequence[str] | None = None,
    random: Mapping[str, Any] | None = None,
    groups: Mapping[str, Any] | None = None,
    partial: bool = False,
    workers: int = 0,
    keep: bool = False,
    **options: Any,
) -> ClipCorpus:
    """A release as clips.

    Parameters
    ----------
    source : its folder (or .scp list).
    kind : the name of its reader, where it is not recognised.
    media : modality -> kind of medium and its options, see `fusionzoo.data.clips.media`.
    modalities : only these.
    random : `{"test": 0.1, "dev": 0.1, "seed": 0}` splits by drawing utterances, MemoCMT's protocol on IEMOCAP; speakers are
        then in train and test. None takes the reader's split.
    groups : `{"k": 5, "published": false}` puts the release's folds (actors, speakers, sessions) into groups of neighbours, the
        column `group` for cross-validation by group, see `RawCorpus.group_folds`; a fold in none of the published groups is
        called "" and always train.
    partial : keep utterances that lack one of the media; False leaves them out.
    workers : threads that read ahead.
    keep : keep in memory what was read and not augmented.
    options : the reader's own, such as `classes` and `test_session`; None leaves its default.

    Raises `DataError` where nothing usable is left, `OptionError` for an unknown option, kind or modality.
    """
    kinds = read_media(media)
    if modalities is not None:
        wanted = list(modalities)
        for name in wanted:
            if name not in kinds:
                raise OptionError(
                    f"modalities: {name!r} is not in data.media{close_matches_hint(name, kinds) or '.'} It has: "
                    f"{', '.join(kinds)}."
                )
        kinds = {m: kinds[m] for m in wanted}
    raw = read_raw(source, kind, **{k: v for k, v in options.items() if v is not None})
    raw = raw.random_split(**_drawn(random)) if random else raw.as_single_utterances()
    needs = {m: medium.needs() for m, medium in kinds.items()}
    if not partial:
        raw = raw.require(*dict.fromkeys(needs.values()))
    corpus = _corpus(raw, kinds, needs, workers, keep)
    if groups is not None:
        corpus.extras["group"] = _groups(raw, groups)
    return corpus


def _groups(raw: RawCorpus, given: Mapping[str, Any]) -> np.ndarray:
    if not isinstance(given, Mapping) or set(given) - {"k", "published"} or not isinstance(given.get("k"), int):
        raise OptionError(f"data.groups is like {{k: 5, published: false}}, not {given!r}")
    made = raw.group_folds(given["k"], published=bool(given.get("published", False)))
    number = {fold: f"group{i + 1}" for i, folds in enumerate(made) for fold in folds}
    return np.array([number.get(u.fold or "", "") for u in raw.utterances])


def check_clip_options(options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for an option of section `data` that neither `read_clips` nor the reader (of `kind`) takes."""
    own = {p.name for p in inspect.signature(read_clips).parameters.values() if p.kind is p.KEYWORD_ONLY} - {
        "modalities"
    }
    try:
        read_media(options["media"])
        if options.get("random") is not None:
            _drawn(options["random"])
    except OptionError as error:
        raise ConfigError(str(error)) from error
    kind = options.get("kind")
    try:
        asked = None if kind is None else release_name(str(kind))
    except OptionError as error:
        raise ConfigError(f"configuration key 'data.kind': {error}") from error
    readers = readers_of(ReleaseReader)
    known = own | {"media"}
    for reader in readers.values() if asked is None else [readers[asked]]:
        known |= set(options_of(reader))
    for key, value in options.items():
        if key not in known and value is not None:
            raise ConfigError(
                f"unknown configuration key 'data.{key}'{close_matches_hint(str(key), known) or '.'} With data.media it takes: "
                f"{', '.join(sorted(known))}."
            )


def _drawn(given: Mapping[str, Any]) -> dict[str, Any]:
    known = ("test", "dev", "seed")
    if not isinstance(given, Mapping) or any(k not in known for k in given) or "test" not in given:
        raise OptionError(f"data.random is like {{test: 0.1, dev: 0.1, seed: 0}}, not {given!r}")
    return {"dev": 0.1, **given}


def _corpus(raw: RawCorpus, media: dict[str, Medium], needs: dict[str, str], workers: int, keep: bool) -> ClipCorpus:
    clips = raw.utterances
    widths, present = {}, {}
    for m, medium in media.items():
        there = np.array([u.has(needs[m]) for u in clips])
        if not there.any():
            raise DataError(f"{raw.root}: no utterance of {raw.name} has {needs[m]}; leave {m} out of data.media.")
        widths[m] = medium.width(clips[int(there.argmax())])
        if not there.all():
            present[m] = there
    return ClipCorpus(
        name=raw.name,
        features={},
        dialogue_id=np.array([u.id for u in clips]),
        utterance_index=np.zeros(len(clips), dtype=np.int64),
        speaker=np.array([u.speaker for u in clips]),
        label=np.array([u.label for u in clips], dtype=np.int64),
        label_names=raw.label_names,
        split=np.array([u.split or "train" for u in clips]),
        present=present,
        utterance_id=np.array([u.id for u in clips]),
        info={
            "source": str(raw.root),
            "release": raw.name,
            **raw.info,
            "skipped": raw.skipped(),
            "media": {m: repr(medium) for m, medium in media.items()},
        },
        extras={"fold": np.array([u.fold or "" for u in clips])},
        media=media,
        clips=clips,
        widths=widths,
        workers=workers,
        keep=keep,
    )
