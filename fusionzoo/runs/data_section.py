"""What section `data` of a configuration stands for: where the conversations lie, and the corpus that they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import fusionzoo
from fusionzoo.runs.config import DataConfig

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus


def anchor_paths(data: DataConfig) -> None:
    """Make the paths of section `data` absolute, so that a run's config.yaml works from anywhere."""
    data.source = absolute_source(data.source)
    if data.split is not None and Path(data.split).exists():
        data.split = str(Path(data.split).resolve())


def absolute_source(source: str) -> str:
    """A path that exists as an absolute one; names of datasets stay names."""
    if source in fusionzoo.names("dataset") or not Path(source).exists():
        return source
    return str(Path(source).resolve())


def load_corpus(data: DataConfig) -> Corpus:
    """The corpus of section `data`."""
    from fusionzoo.data import load

    return load(
        data.source,
        split=data.split,
        modalities=data.modalities,
        dev_fraction=data.dev_fraction,
        merge_dev=data.merge_dev,
        split_seed=data.split_seed,
        **data.options,
    )


def corpus_sha256(corpus: Corpus) -> str:
    """Hash of everything in a corpus that can change a run: features, labels, speakers, order and split."""
    from fusionzoo.data.clips.corpus import ClipCorpus
    from fusionzoo.data.scores import scores_of

    if isinstance(corpus, ClipCorpus):
        return corpus.sha256()
    digest = hashlib.sha256()
    for name in (*corpus.features,):
        digest.update(name.encode())
        digest.update(corpus.features[name].tobytes())
        if name in corpus.present:
            digest.update(corpus.present[name].tobytes())
    digest.update(corpus.label.tobytes())
    if (scores := scores_of(corpus)) is not None:
        digest.update(scores.tobytes())
    for column in (corpus.dialogue_id, corpus.speaker, corpus.split, corpus.label_names):
        digest.update("\0".join(map(str, column)).encode())
    return digest.hexdigest()
