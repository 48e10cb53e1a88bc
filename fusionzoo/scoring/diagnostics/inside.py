"""What stands inside a host while it reads: attention maps of one dialogue, fused vectors of a split and their map in the plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from fusionzoo.data.loading import split_of
from fusionzoo.errors import DataError, MissingDependency, OptionError, close_matches_hint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusionzoo.batch import Batch
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.host import Host, HostOutput

FUSED = "fused"
METHODS = ("tsne", "umap")
#: So few points have no neighbours to speak of.
_FEWEST = 5


@dataclass(frozen=True)
class Attention:
    """Attention maps of one dialogue.

    Parameters
    ----------
    dialogue : its id.
    maps : name -> `(rows, columns)`: what stands at a column was attended to by what stands at the row; heads and features
        averaged.
    utterances : a label for each utterance: its number, speaker and emotion.
    modalities : of the model.
    """

    dialogue: str
    maps: Mapping[str, np.ndarray]
    utterances: tuple[str, ...]
    modalities: tuple[str, ...]

    def evenness(self) -> dict[str, float]:
        """Name -> mean entropy of the map's rows beside that of attention which is the same everywhere, from 0 to 1."""
        out = {}
        for name, weights in self.maps.items():
            rows = np.maximum(weights, 0.0)
            p = rows / np.maximum(rows.sum(-1, keepdims=True), 1e-12)
            entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(-1)
            out[name] = float(entropy.mean() / np.log(p.shape[-1])) if p.shape[-1] > 1 else 1.0
        return out


@torch.inference_mode()
def attention_over(host: Host, corpus: Corpus, dialogue: str | None = None, split: str = "test") -> Attention:
    """Attention maps of a host over one dialogue.

    Parameters
    ----------
    host : trained.
    corpus : what holds the dialogue.
    dialogue : its id; None for one of middle length of the split.
    split : where it is looked for.

    Raises
    ------
    DataError : there is no such dialogue.
    """
    there = corpus.dialogues(split)
    if not there:
        raise DataError(f"{corpus.name!r} has no dialogue in its {split} split")
    if dialogue is None:
        chosen = sorted(there, key=len)[len(there) // 2]
    else:
        found = next((d for d in there if d.id == dialogue), None)
        if found is None:
            ids = [d.id for d in there]
            hint = close_matches_hint(dialogue, ids) or f"; there are {', '.join(ids[:5])}, ..."
            raise DataError(f"{corpus.name!r} has no dialogue {dialogue!r} in its {split} split{hint}")
        chosen = found
    before, host.keep_attention = host.keep_attention, True
    training = host.training
    try:
        host.eval()
        batch = next(iter(split_of(_alone(corpus, chosen.id), split, _device(host)).batches(1, shuffle=False)))
        maps = host(batch).attention
    finally:
        host.keep_attention = before
        host.train(training)
    rows = range(chosen.start, chosen.stop)
    labels = [corpus.label_names[c] if c >= 0 else "" for c in corpus.label[chosen.start : chosen.stop]]
    words = tuple(
        f"{i + 1} {corpus.speaker[r]} {name}".rstrip() for i, (r, name) in enumerate(zip(rows, labels, strict=True))
    )
    # A block that has no attention says so with an empty map, or leaves it out.
    shown = {k: flat_map(x[0].float().cpu().numpy(), len(chosen)) for k, x in maps.items() if x.numel() and x.dim() > 1}
    return Attention(chosen.id, shown, words, tuple(host.names))


def flat_map(weights: np.ndarray, steps: int) -> np.ndarray:
    """One dialogue's map of any rank as `(rows, columns)`: the last axis is what was attended to.

    Parameters
    ----------
    weights : without the batch's axis: `(T,)`, `(T, M)`, `(T, T)`, `(heads, T, S)`, `(T, width, M)`, `(T, heads, a, b)`.
    steps : T; an axis of that length that comes first stays.
    """
    if weights.ndim < 2:
        return weights.reshape(1, -1)
    keeps_first = weights.ndim > 2 and weights.shape[0] == steps and weights.shape[-2] != weights.shape[-1]
    axes = range(1, weights.ndim - 1) if keeps_first else range(weights.ndim - 2)
    return weights.mean(axis=tuple(axes)) if axes else weights


@dataclass(frozen=True)
class Vectors:
    """Fused vectors.

    Parameters
    ----------
    rows : `(N,)` of the corpus.
    values : `(N, width)`.
    """

    rows: np.ndarray
    values: np.ndarray


def fused_vectors(host: Host, corpus: Corpus, split: str = "test", batch_size: int = 16) -> Vectors:
    """What the fusion of a host gives for every utterance of a split.

    Raises
    ------
    OptionError : the host reports no fused stream, as with one modality.
    """
    spans = {d.id: d for d in corpus.dialogues(split)}
    rows: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for batch, out in _outputs(host, corpus, split, batch_size):
        if FUSED not in out.streams or out.streams[FUSED].shape[:2] != batch.mask.shape:
            raise OptionError(
                f"{type(host).__name__} reports no fused vector per utterance"
                + ("" if host.built_fusion is not None else ": with one modality nothing is fused")
            )
        fused = out.streams[FUSED].float().cpu().numpy()
        for i, (name, length) in enumerate(zip(batch.ids, batch.lengths_list(), strict=True)):
            rows.append(np.arange(spans[name].start, spans[name].stop))
            values.append(fused[i, :length])
    return Vectors(np.concatenate(rows), np.concatenate(values))


@torch.inference_mode()
def _outputs(host: Host, corpus: Corpus, split: str, batch_size: int) -> Iterator[tuple[Batch, HostOutput]]:
    training = host.training
    host.eval()
    for batch in split_of(corpus, split, _device(host)).batches(batch_size, shuffle=False):
        yield batch, host(batch)
    host.train(training)


def in_the_plane(values: np.ndarray, method: Literal["tsne", "umap"] = "tsne", seed: int = 0) -> np.ndarray:
    """`(N, 2)` map of vectors `(N, width)` that keeps neighbours together.

    Parameters
    ----------
    values : the vectors.
    method : `tsne` (scikit-learn), or `umap` (umap-learn, the extra `umap`).
    seed : of the map; the same one gives the same map on one machine.

    Raises
    ------
    MissingDependency : umap-learn is not installed.
    OptionError : an unknown method, or fewer than five vectors.
    """
    if method not in METHODS:
        raise OptionError(
            f"there is no map {method!r}{close_matches_hint(method, METHODS) or '.'} Known: {', '.join(METHODS)}"
        )
    if len(values) < _FEWEST:
        raise OptionError(f"a map of neighbours needs {_FEWEST} vectors or more, not {len(values)}")
    scale = values.std(0)
    x = (values - values.mean(0)) / np.where(scale > 1e-9, scale, 1.0)
    if method == "umap":
        return np.asarray(_umap(len(x), seed).fit_transform(x))
    from sklearn.manifold import TSNE

    return TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init="random", random_state=seed).fit_transform(x)


def _umap(points: int, seed: int) -> Any:
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingDependency("umap-learn", "umap", "a UMAP of fused vectors") from error
    return UMAP(n_neighbors=min(15, points - 1), random_state=seed, n_jobs=1)


def _alone(corpus: Corpus, dialogue: str) -> Corpus:
    """The corpus with all dialogues but one out of the way, so that it is the first batch of its split."""
    mine = corpus.dialogue_id == dialogue
    home = str(corpus.split[mine][0])
    elsewhere = next(s for s in ("train", "dev") if s != home)
    return replace(corpus, split=np.where(mine, home, elsewhere))


def _device(host: Host) -> torch.device:
    return next(host.parameters()).device
