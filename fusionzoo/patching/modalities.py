"""Which arguments of a call are modalities, and what they are called.

An argument counts as a modality when it is a float tensor with features (two axes or more, not all zeros and ones) whose
name does not say that it is something else (mask, length, label, speaker, edge, ...), or an integer tensor whose name says
that it is one (token ids in `text`). Names that say text, audio or visual in the usual spellings become these three; others
stay as they are. `modalities=` overrides all of it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import ModalityError, close_matches_hint

ORDER = ("text", "audio", "visual")
_STEMS = {
    "audio": (
        "audio",
        "acou",
        "speech",
        "wav",
        "voice",
        "sound",
        "mfcc",
        "input_values",
        "input_features",
        "prosod",
        "covarep",
        "opensmile",
        "spectro",
        "fbank",
        "hubert",
        "vggish",
        "gemaps",
    ),
    "visual": (
        "visu",
        "video",
        "vision",
        "image",
        "img",
        "face",
        "facial",
        "frame",
        "vid",
        "openface",
        "gesture",
        "gaze",
        "landmark",
        "pixel",
        "patches",
    ),
    "text": (
        "text",
        "lingu",
        "lang",
        "word",
        "bert",
        "token",
        "sent",
        "transcript",
        "glove",
        "roberta",
        "input_ids",
        "inputs_embeds",
        "question",
    ),
    "layout": ("bbox",),  # where on the page the words stand, in models of documents
}
_SHORT = {
    **dict.fromkeys(("t", "l", "txt", "lin", "ques"), "text"),
    **dict.fromkeys(("a", "aud", "aco", "ac", "wave"), "audio"),
    **dict.fromkeys(("v", "vis", "vi", "img"), "visual"),
}
_OTHER = (
    "mask", "len", "label", "target", "speak", "spk", "party", "adj", "edge", "graph", "index", "idx", "posi", "dist",
    "time", "hidden", "state", "weight", "mode", "type", "dia", "epoch", "pad", "gender", "class", "loss", "knn", "dropout",
    "sentiment", "emo", "qmask", "umask",
)  # fmt: skip
# Said of whole numbers that are no tokens: image_sizes, video_grid_thw, num_frames_per_video, lang_ids.
_NUMBERS = ("size", "shape", "grid", "num", "count", "scale", "alignment", "pooling", "per", "cutoff", "lang")
# Said of a stream too, where the modality comes after it: padded_audio, hidden_text.
_WEAK = ("pad", "emo", "sentiment", "hidden", "state", "weight", "time", "mode", "class", "dia", "dist", "graph")
_GENERIC = {"u", "x", "utt", "utterance", "utterances", "features", "feature", "input", "inputs", "seq", "r"}

#: Argument -> its modality, those of the tensors that it holds, or those that lie side by side in it, by width; None leaves
#: it out. Or the modalities in the order of the arguments.
ModalitiesLike = Mapping[str, str | Sequence[str] | Mapping[str, int] | None] | Sequence[str] | None


@dataclass
class Leaf:
    """A tensor among the arguments: where it is, what it holds, and the modality that it was taken for."""

    path: str
    hint: str
    tensor: Tensor
    modality: str | None = None
    widths: dict[str, int] | None = None  # of an argument that holds several modalities side by side
    stacked: tuple[str, ...] = ()  # of one that holds them one after the other
    axis: int = -1  # along which they are side by side or stacked

    @property
    def stream(self) -> Tensor:
        """One modality's tensor, or all of them side by side."""
        return self.tensor.select(self.axis, 0) if self.stacked else self.tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities that it holds."""
        if self.stacked or self.widths:
            return self.stacked or tuple(self.widths or ())
        return () if self.modality is None else (self.modality,)


def _words(name: str) -> list[str]:
    return [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]


def canonical(name: str) -> str | None:
    """text, audio or visual where a name says so.

    >>> [canonical(n) for n in ("Uacoustic", "x_l", "visuf", "r3", "eeg")]
    ['audio', 'text', 'visual', 'text', None]
    """
    low, words = name.lower(), _words(name)
    if (modality := _stem(low)) is not None:
        return modality
    for word in reversed(words):
        if word in _SHORT:
            return _SHORT[word]
    return "text" if re.fullmatch(r"r\d", low) else None


def _stem(low: str) -> str | None:
    return next((m for m, stems in _STEMS.items() if any(s in low for s in stems)), None)


def is_other(name: str) -> bool:
    """Whether a name says that an argument is no stream: a mask, lengths, labels, positions, ..."""
    words = _words(name)
    for i, w in enumerate(words):
        if w.endswith(("mask", "len", "lens", "lengths", "label", "labels")):
            return True
        if w.startswith(_OTHER) and not (w.startswith(_WEAK) and any(map(_stem, words[i + 1 :]))):
            return True
    return False


def _binary(x: Tensor) -> bool:
    if x.is_meta:  # which holds no values
        return False
    sample = x.detach().flatten()[:4096]
    return bool(((sample == 0) | (sample == 1)).all())


def leaves(value: Any, path: str, hint: str, depth: int = 0) -> Iterator[Leaf]:
    """Every tensor inside an argument: containers, named tuples, dataclasses and plain objects are looked into."""
    if isinstance(value, Tensor):
        yield Leaf(path, hint, value)
    elif (
        depth > 4 or value is None or isinstance(value, (str, bytes, int, float, nn.Module, torch.device, torch.dtype))
    ):
        return
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from leaves(v, f"{path}[{k!r}]", k if isinstance(k, str) else hint, depth + 1)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for k in value._fields:  # type: ignore[attr-defined]
            yield from leaves(getattr(value, k), f"{path}.{k}", k, depth + 1)
    elif isinstance(value, (list, tuple)):
        for i, v in enumerate(value):
            yield from leaves(v, f"{path}[{i}]", hint, depth + 1)
    elif dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        for k, v in _attributes(value):
            yield from leaves(v, f"{path}.{k}", k, depth + 1)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, type) or callable(value):
        return
    own = getattr(value, "__dict__", {})
    stores = None if "stores" in own else getattr(value, "stores", None)  # torch_geometric's Data has one
    store = stores[0] if isinstance(stores, list) and len(stores) == 1 else None
    if isinstance(store, Mapping):
        items = list(store.items())
    elif dataclasses.is_dataclass(value):  # with slots, it has no __dict__
        items = [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
        items += [(k, v) for k, v in own.items() if k not in dict(items)]
    else:
        items = list(own.items())
    for k, v in items:
        if isinstance(k, str) and not k.startswith("_"):
            yield k, v


def find_modalities(arguments: Mapping[str, Any], modalities: ModalitiesLike = None) -> list[Leaf]:
    """Every tensor among the arguments, with `modality` set where it is one."""
    check_modalities(modalities)
    found = [one for name, value in arguments.items() for one in leaves(value, name, name)]
    if isinstance(modalities, Mapping) and any(v is not None for v in modalities.values()):
        return _by_mapping(found, modalities)
    candidates = [f for f in found if _is_feature(f)]
    if isinstance(modalities, Mapping):
        excluded = {k for k, v in modalities.items() if v is None}
        candidates = [f for f in candidates if not any(_under(f, k) for k in excluded)]
    if modalities is not None and not isinstance(modalities, Mapping):
        return _by_order(found, candidates, list(modalities))
    _name(candidates)
    return found


def check_modalities(modalities: Any) -> None:
    """Refuse a `modalities=` that is no mapping and no sequence of names."""
    if modalities is None:
        return
    if isinstance(modalities, Mapping):
        names: list[Any] = []
        if strange := [k for k in modalities if not isinstance(k, str)]:
            raise ModalityError(
                f"modalities= names an argument {strange[0]!r}; give its name or path as text, such as 'x[0]'"
            )
        for value in modalities.values():
            names += [] if value is None else [value] if isinstance(value, str) else _names_in(value)
    elif isinstance(modalities, Sequence) and not isinstance(modalities, str):
        names = list(modalities)
        if len(set(map(str, names))) < len(names):
            raise ModalityError(f"modalities= names a stream twice: {', '.join(map(str, names))}")
    else:
        raise ModalityError(
            "modalities= is a mapping of argument to modality, such as {'x': 'text'}, or a list of names in the order of the "
            f"arguments, not {type(modalities).__name__}"
        )
    for name in names:
        if not can_name(name):
            raise ModalityError(
                f"modalities= names a stream {name!r}, by which no part of a module can be called; take another name, such as 'audio'"
            )


def can_name(name: Any) -> bool:
    """Whether something can be registered under a name in a ModuleDict: it has a few names of its own, such as `keys`."""
    return isinstance(name, str) and bool(name) and "." not in name and not hasattr(nn.ModuleDict, name)


def _names_in(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        for name, width in value.items():
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise ModalityError(f"modalities=: the width of {name!r} must be a positive integer, not {width!r}")
        return list(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ModalityError(
        "modalities= maps an argument to a modality's name, to None, to a list of names where it holds several tensors, or to a "
        f"mapping of modality to width where it holds several side by side, not to {value!r}"
    )


def _is_feature(f: Leaf) -> bool:
    x, named = f.tensor, canonical(f.hint)
    if x.dim() < 2 or x.layout is not torch.strided or x.numel() == 0 or is_other(f.hint):
        return False
    if x.is_floating_point():
        return not _binary(x)
    counts = any(w == n or w == f"{n}s" for w in _words(f.hint) for n in _NUMBERS)
    return named is not None and not counts and x.dtype in (torch.int64, torch.int32)


def _name(candidates: list[Leaf]) -> None:
    named: set[str | None] = set()
    hints = {f.hint for f in candidates}
    for f in candidates:
        # Several tensors under a name that says a modality are all of it: textf=[r1, r2, r3, r4].
        f.modality = _by_first_letter(f.hint, hints) or canonical(f.hint)
        named.add(f.modality)
    rest: dict[str, list[Leaf]] = {}
    for f in candidates:
        if f.modality is None:
            rest.setdefault(f.hint, []).append(f)
    # One stream beside audio and visual is the text: forward(U, qmask, umask, U_a, U_v). Beside both, U may be a list.
    both = {"audio", "visual"} <= named
    lone = [h for h in rest if h.lower() in _GENERIC] or (list(rest) if both else [])
    if "text" not in named and named & {"audio", "visual"} and len(lone) == 1 and (both or len(rest[lone[0]]) == 1):
        for f in rest.pop(lone[0]):
            f.modality = "text"
    for hint, group in rest.items():
        for i, f in enumerate(group):
            name = hint if len(group) == 1 else f"{hint}{i}"
            name = re.sub(r"\W+", "_", name).strip("_").lower() or "input"
            f.modality = name if can_name(name) else f"{name}_stream"


def _by_first_letter(name: str, others: Collection[str]) -> str | None:
    """The modality of an argument that is called like another with a letter before it: `input_values`, `vinput_values`."""
    return _SHORT.get(name[:1].lower()) if len(name) > 2 and name[1:] in others else None


def _under(f: Leaf, key: str) -> bool:
    return f.path == key or f.hint == key or f.path.startswith((f"{key}[", f"{key}."))


def _by_mapping(found: list[Leaf], modalities: Mapping[str, Any]) -> list[Leaf]:
    for key, value in modalities.items():
        hits = [f for f in found if f.path == key] or [f for f in found if _under(f, key)]
        hits = [f for f in hits if f.tensor.is_floating_point() or f.tensor.dtype in (torch.int64, torch.int32)]
        if not hits:
            paths = [f.path for f in found]
            raise ModalityError(
                f"modalities= names {key!r}, which is no tensor among the arguments{close_matches_hint(key, paths)}; "
                f"they hold: {', '.join(paths) or 'none'}"
            )
        _as_told(hits, key, value)
    return found


def _as_told(hits: list[Leaf], key: str, value: Any) -> None:
    """What `modalities=` says of the tensors at one key."""
    if isinstance(value, (list, tuple)) and len(hits) == 1 < len(value):
        _stack(hits[0], value)
    elif isinstance(value, (list, tuple)):
        if len(value) != len(hits):
            raise ModalityError(f"modalities= gives {len(value)} names for {key!r}, which holds {len(hits)} tensors")
        for f, one in zip(hits, value, strict=True):
            f.modality = one
    elif isinstance(value, Mapping):
        if len(hits) != 1 or sum(value.values()) != hits[0].tensor.shape[-1]:
            raise ModalityError(
                f"modalities= splits {key!r} into widths {dict(value)}, which do not add up to its "
                f"{hits[0].tensor.shape[-1]} features"
            )
        hits[0].widths = dict(value)
    else:
        for f in hits:
            f.modality = value


def _stack(f: Leaf, names: Sequence[str]) -> None:
    """Several modalities one after the other along an axis of a tensor, which has as many places."""
    axes = [d for d, size in enumerate(f.tensor.shape[:-1]) if size == len(names)]
    if f.tensor.dim() < 3 or len(axes) != 1:
        which = f"{len(axes)} of its axes have" if len(axes) > 1 and f.tensor.dim() > 2 else "none of its axes has"
        cure = (
            "call the model with a batch of another size"
            if len(axes) > 1
            else "give as many names as it holds modalities"
        )
        raise ModalityError(
            f"modalities= gives {len(names)} names for {f.path!r}, which is one tensor {tuple(f.tensor.shape)}: {which} {len(names)} "
            f"places beside its features; {cure}"
        )
    f.stacked, f.axis, f.modality = tuple(names), axes[0], "+".join(names)


def _by_order(found: list[Leaf], candidates: list[Leaf], names: list[str]) -> list[Leaf]:
    if len(candidates) == 1 < len(names) and len(names) in candidates[0].tensor.shape[:-1]:
        _stack(candidates[0], names)
        return found
    if len(names) != len(candidates):
        raise ModalityError(
            f"modalities= names {len(names)} streams ({', '.join(names)}), but {len(candidates)} arguments look like streams "
            f"({', '.join(f.path for f in candidates) or 'none'}); give a mapping of argument to modality"
        )
    for f, name in zip(candidates, names, strict=True):
        f.modality = name
    return found
