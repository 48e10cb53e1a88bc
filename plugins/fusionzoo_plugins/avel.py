"""AVEL of Foal-Net: emotion alignment of two modalities by contrast, before they are fused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.layers import dropout
from fusionzoo.objective import IGNORE, Objective, stream_widths
from fusionzoo.reference import WithReference
from fusionzoo_plugins._contrastive import check_chunk, contrast
from fusionzoo_plugins._objective_tools import (
    Names,
    check_dims,
    check_names,
    counted,
    full_precision,
    pairs,
    rows,
    stream,
    total,
    unbound,
    unit,
)


class Projection(WithReference, nn.Module):
    r"""Foal-Net's projection into the common space.

    .. math:: e = W_1 x, \qquad \operatorname{LN}(e + W_2 \operatorname{GELU}(e))

    Parameters: :math:`d\,w + w^2 + 2 w`, and dropout after :math:`W_2` in training.
    Source: ASolitaryMan/Foal-Net@781849fdf6, `model.py:Projection`.
    """

    def __init__(self, inputs: int, width: int, dropout: float = 0.5):
        super().__init__()
        self.linear1 = nn.Linear(inputs, width, bias=False)
        self.linear2 = nn.Linear(width, width, bias=False)
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        e = self.linear1(x)
        return self.layer_norm(e + dropout(self.linear2(F.gelu(e)), self.dropout, self.training))

    def reference_names(self) -> Mapping[str, str]:
        return {"": ""}


class AVEL(Objective):
    r"""Audio-visual emotion alignment (AVEL), between every two modalities.

    .. math::
        L = \tfrac12 (L^{mn} + L^{nm}), \qquad
        L^{mn} = -\frac1N \sum_i \frac{1}{|P_i|} \sum_{j \in P_i}
                 \log \operatorname{softmax}_j \big(e^{s} \langle z^m_i, z^n_j\rangle\big)

    with :math:`z = \operatorname{Proj}(x) / \|\operatorname{Proj}(x)\|`, :math:`P_i` the utterances with the label of i,
    itself included, and a learnt s, at first :math:`\log(1/0.07)` and at most :math:`\log 100`. An utterance counts for a
    pair where it has a label and both modalities were recorded; of three modalities the mean over the pairs is taken.

    Each process of a distributed run contrasts its own utterances.

    Options
    -------
    streams : names; default `"<modality>.input"`, which the fusion foal-net reports (what it was given), else the
        streams named like the modalities.
    width : of the common space.
    dropout : in the projections.
    dims : stream name -> width, to build the projections without a host; default asks the host.
    chunk : anchors at a time, default as many as suit the device; memory is linear in the number of utterances.
    variant : see `variants`.

    Parameters: per stream :math:`d\,w + w^2 + 2 w`, and one for the temperature.
    Source: Li et al., "Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition"
    (Foal-Net), Interspeech 2024; code ASolitaryMan/Foal-Net@781849fdf6, `model.py`.

    Shapes: streams `(B, T, d_m)`, labels `(B, T)` -> scalar.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.avel:OfficialAVEL"}
    #: Whether an utterance's positives are averaged, not added up.
    mean_of_positives: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        streams: list[str] | None = None,
        width: int = 512,
        dropout: float = 0.5,
        dims: dict[str, int] | None = None,
        chunk: int | None = None,
        variant: str = "default",
    ):
        super().__init__(num_classes, class_counts)
        self.streams = check_names(streams, self)
        self.width = check_positive(width, "width", self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.chunk = check_chunk(chunk, self)
        self.temp = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.names: tuple[str, ...] = ()
        self.projections = nn.ModuleList()
        if dims is not None:
            self._build(check_dims(dims, self))

    def bind(self, host) -> None:
        """Build the projections for the widths of the host's streams, where `dims` did not."""
        if not self.names:
            widths = stream_widths(host)
            self._build({n: widths[n] for n in stream_names(widths, host.names, self.streams, self)})

    def _build(self, dims: Mapping[str, int]) -> None:
        self.names = tuple(dims)
        self.projections.extend(Projection(d, self.width, self.dropout) for d in dims.values())

    def forward(self, out, batch) -> Tensor:
        if not self.names:
            raise unbound(self, "projections")
        streams = here(out, batch, self.names, self)
        losses = []
        for m, n in pairs(streams):
            mask = counted(batch, m, n)
            labels = torch.where(mask, batch.labels, IGNORE).flatten()
            with full_precision(out.logits):
                a, b = (self.project(k, rows(streams[k], mask)) for k in (m, n))
                losses.append(self.align(a, b, labels))
        return total(losses, out) / max(len(losses), 1)

    def project(self, name: str, x: Tensor) -> Tensor:
        """A stream's rows in the common space, of unit length: `(N, d_m)` to `(N, width)`."""
        return unit(self.projections[self.names.index(name)](x.to(self.temp.dtype)))

    def scale(self) -> Tensor:
        """What cosines are multiplied by, a learnt scalar."""
        return self.temp.clamp(max=math.log(100)).exp()

    def align(self, a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
        """The loss of two views `(N, width)` of the same samples, both of unit length, under `labels (N,)`."""
        scale = self.scale()
        real = labels != IGNORE
        weight = real.to(a) / (-2 * real.sum().clamp(min=1))
        both = [
            contrast(x, y, labels, scale.to(a), weight, itself=True, mean=self.mean_of_positives, chunk=self.chunk)
            for x, y in ((a, b), (b, a))
        ]
        return both[0] + both[1]


def stream_names(
    available: Mapping[str, object], modalities: Sequence[str], given: Names, owner: object, inputs: bool = True
) -> list[str]:
    """The names given; or per modality what its fusion was given (with `inputs`), where that is reported, or its stream."""
    if given is not None:
        absent = [n for n in given if n not in available]
        if absent:
            raise OptionError(
                f"{type(owner).__name__}: the host does not report the stream {absent[0]!r}; it reports "
                f"{', '.join(available) or 'none'}"
            )
        return list(given)
    found = [next((n for n in (f"{m}.input", m)[not inputs :] if n in available), None) for m in modalities]
    names = [n for n in found if n is not None]
    if len(names) < 2:
        raise OptionError(
            f"{type(owner).__name__} needs a stream of two modalities, and this host with this fusion reports "
            f"{', '.join(available) or 'none'}; take a fusion that reports one stream per modality, such as foal-net or lmam"
        )
    return names


def here(out, batch, names: Sequence[str], owner: object) -> dict[str, Tensor]:
    """The streams by name, without those of a modality that the whole batch lacks."""
    return {n: stream(out, n, owner) for n in names if n in out.streams or n.partition(".")[0] in batch.modalities}


fusionzoo_register = fusionzoo.plugin(
    AVEL,
    summary="Foal-Net's alignment: one emotion, one place, whatever the modality",
    paper="Li et al., Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition, "
    "Interspeech 2024, arXiv 2408.09438",
    code="ASolitaryMan/Foal-Net@781849fdf6",
    diagram="""
    a["audio stream"] --> pa["projection, unit length"]
    v["visual stream"] --> pv["projection, unit length"]
    pa --> s(("cosines"))
    pv --> s
    y["labels"] --> L["contrast both ways"]
    s --> L
    """,
)
