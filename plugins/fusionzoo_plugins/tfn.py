"""Tensor fusion: the outer product of all modalities, each with a one in front."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_probability
from fusionzoo.errors import FusionZooWarning, OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import check_modalities
from fusionzoo_plugins._fully_connected import FullyConnected, check_hidden
from fusionzoo_plugins._products import Widths, subspace_widths

#: Bytes above which a tensor is worth a warning before it is allocated.
LARGE = 2_000_000_000
#: Entries of the outer product, and width of a modality, that the default width stays below.
ENTRIES, WIDEST = 8192, 32


class LargeTensorWarning(FusionZooWarning):
    """An outer product, or the map that reads it, takes more than 2 GB."""


class TensorFusion(Fusion):
    r"""Tensor fusion network (TFN): all products of features across modalities.

    .. math::
        h_m = W_m x_m + b_m, \qquad
        z = \operatorname{vec}\big([1; h_1] \otimes [1; h_2] \otimes \dots \otimes [1; h_M]\big), \qquad
        y = \operatorname{MLP}(\operatorname{dropout}(z))

    The ones keep the products of every subset of modalities; an absent modality leaves those of the others. The last
    modality varies fastest in z. Acts within a time step, for any number of modalities from two.

    z has :math:`P = \prod_m (w_m + 1)` entries per step: 5.6e8 for features of 1024, 1582 and 342, so that modalities are
    mapped to a small width first. Where z, or the first map of the MLP, takes more than 2 GB all the same, a
    `LargeTensorWarning` comes before it is allocated; `lmf` computes with the same tensor and never builds it.

    Departs from the paper in the linear map, where the paper has a network per modality (`SubNetworks` in
    `_mmsa_networks.py`, as thuiar/MMSA has it), and in the dropout on z (thuiar/MMSA).

    Options
    -------
    width : of h, one for all or a sequence of one each; default the largest up to 32 for which P stays within 8192 (19
        for three modalities), or the modality's own where that is smaller.
    project : `False` takes the features as they are.
    hidden : widths of the MLP's ReLU layers, default (128, 128) as in the paper; `()` is one linear map.
    dropout : on z, default 0.2.
    rectify : ReLU on y too, as in MM-DFN.

    Parameters: :math:`\sum_m (d_m + 1) w_m` for the maps, then those of :math:`P \to` hidden :math:`\to` out_dim.
    Source: Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017, arXiv 1707.07250, section
    4.2 and 4.3; thuiar/MMSA@a94e65d07f, pliang279/MultiBench@49f9be224f, zerohd4869/MM-DFN@da97036606.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> TensorFusion({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: Widths = None,
        project: bool = True,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.2,
        rectify: bool = False,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.dropout = check_probability(dropout, "dropout", self)
        self.rectify = rectify
        hidden = check_hidden(hidden, self)
        widths = _widths(self.dims, width, project, self)
        self.entries = _entries(widths)
        first = [*hidden, self.out_dim][0]
        self._warn_if_large(
            self.entries * first * torch.get_default_dtype().itemsize,
            f"the map from {self.entries:,} products to {first} features",
        )
        self.project = nn.ModuleList(
            nn.Linear(d, w) if project else nn.Identity() for d, w in zip(self.dims.values(), widths, strict=True)
        )
        self.head = FullyConnected([self.entries, *hidden, self.out_dim])
        self.set_width(self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        fused = self.head(dropout(self.outer(xs), self.dropout, self.training))
        return Fused(fused.relu() if self.rectify else fused)

    def outer(self, xs: Sequence[Tensor]) -> Tensor:
        """z itself, `(..., P)`, from one `(..., w)` per modality."""
        # A traced size is no number yet: nothing to compare, and a guard on it would bind the program to this batch.
        if not torch.compiler.is_compiling():
            steps = math.prod(xs[0].shape[:-1])
            entries = _entries([x.shape[-1] for x in xs])
            self._warn_if_large(
                steps * entries * xs[0].element_size(), f"the outer product of {entries:,} entries at {steps:,} steps"
            )
        ones = [F.pad(x, (1, 0), value=1.0) for x in xs]
        z = ones[0]
        for x in ones[1:]:
            z = (z.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)
        return z

    def _warn_if_large(self, size: int, what: str) -> None:
        if size > LARGE:
            warnings.warn(
                f"TensorFusion: {what} takes {size / 1e9:,.1f} GB; give a smaller width (dims={self.dims}), or use lmf, "
                "the low-rank form that never builds it",
                LargeTensorWarning,
                stacklevel=4,
            )

    def reference_names(self) -> Mapping[str, str]:
        names = self.head.reference_names("post_fusion_layer_")
        if any(isinstance(p, nn.Linear) for p in self.project):
            check_modalities(self.names, 3, "TFN")
            names |= {f"{m}_subnet.": f"project.{i}" for i, m in enumerate(("audio", "video", "text"))}
        return names


def _entries(widths: Sequence[int]) -> int:
    return math.prod(w + 1 for w in widths)


def _widths(dims: Mapping[str, int], width: Widths, project: bool, owner: object) -> list[int]:
    if project:
        fits = [w for w in range(1, WIDEST + 1) if (w + 1) ** len(dims) <= ENTRIES]
        return subspace_widths(width, dims, max(fits, default=1), owner)
    if width is not None:
        raise OptionError(f"TensorFusion: width={width!r} needs project=True, which maps the modalities to it")
    return list(dims.values())


fusionzoo_register = fusionzoo.plugin(
    TensorFusion,
    summary="outer product of all modalities, each with a one in front",
    paper="Zadeh et al., Tensor Fusion Network for Multimodal Sentiment Analysis, EMNLP 2017",
    code="thuiar/MMSA@a94e65d07f",
    diagram="""
    text["x_text"] --> t["[1; W x]"] --> outer(("outer product"))
    audio["x_audio"] --> a["[1; W x]"] --> outer
    visual["x_visual"] --> v["[1; W x]"] --> outer
    outer --> mlp["MLP"] --> y["y"]
    """,
)
