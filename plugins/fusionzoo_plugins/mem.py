"""MEM of Foal-Net: do these two modalities belong to one utterance? Asked of the fusion's own attention stacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.numerics import zero_padded
from fusionzoo.objective import IGNORE, Objective
from fusionzoo_plugins._objective_tools import (
    check_number,
    counted,
    exact,
    full_precision,
    mean_over,
    rows,
    total,
    unit,
)
from fusionzoo_plugins.avel import AVEL, here


class MEM(Objective):
    r"""Matching of modalities with hard negatives (MEM), on the cross-attention stacks of the fusion foal-net.

    For each utterance i and each direction in which modality m asks n, an utterance j of another emotion is drawn,

    .. math:: j \sim \operatorname{softmax}_{j:\, y_j \ne y_i} s_{ij}, \qquad
              L_{mn} = -\frac{1}{2N} \sum_i \Big( \log \operatorname{softmax}(W g_{mn}(x^m_i, x^n_i))_1
              + \log \operatorname{softmax}(W g_{mn}(x^m_i, x^n_j))_0 \Big)

    and :math:`g_{mn}` is the fusion's stack, pooled. The loss is the mean over the directions. In eval mode the most similar
    utterance is taken instead of a random one. An utterance counts where it has a label, both modalities were recorded, and
    the batch holds another emotion; without any the loss is zero (the published code then calls pairs of one emotion, even
    the same pair, a mismatch).

    Of a host that encodes clips an utterance is its sequence of frames or tokens, as published; of a host of features it is
    a sequence of one step.
    Similarity: as published, AVEL's cosines in its common space, which needs AVEL's loss to mean anything:
    `alignment=10` adds it, tenfold (with the published weight 0.1 of this objective). Without it
    (`alignment=0`, the default) :math:`s_{ij}` is the cosine of :math:`x^n_i` and :math:`x^n_j`: hard is what
    resembles the right answer.

    Options
    -------
    temperature : what the cosines are divided by, without alignment.
    alignment : weight of AVEL inside this objective.
    width, dropout, variant : of AVEL.

    Parameters: :math:`2 (d_m + 1)` per direction, and AVEL's where alignment is not 0. The stacks stay the fusion's.
    Source: Li et al., "Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition"
    (Foal-Net), Interspeech 2024; code ASolitaryMan/Foal-Net@781849fdf6, `model.py`.

    Shapes: streams `"<modality>.input"` `(B, T, d_m)`, labels `(B, T)` -> scalar.
    """

    needs_fusion = "foal-net"
    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.mem:OfficialMEM"}
    reference_table = "fusionzoo_plugins.official.mem"

    without_effect: ClassVar[dict[str, str]] = {
        "width": "of the alignment loss, whose weight is 0 by default",
        "dropout": "of the alignment loss, whose weight is 0 by default",
    }

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        temperature: float = 1.0,
        alignment: float = 0.0,
        width: int = 512,
        dropout: float = 0.5,
        variant: str = "default",
    ):
        super().__init__(num_classes, class_counts)
        self.temperature = check_number(temperature, "temperature", self, open_low=True)
        self.alignment = check_number(alignment, "alignment", self)
        self.avel_options = {
            "width": check_positive(width, "width", self),
            "dropout": check_probability(dropout, "dropout", self),
            "variant": self.variant,
        }
        self.avel: AVEL | None = None
        self.heads = nn.ModuleList()
        self.directions: list[tuple[str, str]] = []
        # A bound method of the host's fusion: the fusion itself must not become a part of this module.
        self.pooled: Callable[..., Tensor] | None = None

    def bind(self, host) -> None:
        """Take hold of the fusion's stacks, and build a head for each direction."""
        fusion: Any = getattr(host, "fusion", None)
        pooled: Any = getattr(fusion, "pooled", None)
        if pooled is None:
            raise OptionError(
                "MEM asks the cross-attention stacks of the fusion foal-net, and this host has "
                f"{'no fusion' if fusion is None else type(fusion).__name__}; take fusion='foal-net', or leave mem out"
            )
        self.pooled = pooled
        if self.heads:
            return
        self.directions = list(permutations(fusion.names, 2))
        self.heads.extend(nn.Linear(fusion.dims[m], 2) for m, _ in self.directions)
        if self.alignment:
            dims = {f"{m}.input": d for m, d in fusion.dims.items()}
            self.avel = AVEL(self.num_classes, None, dims=dims, **self.avel_options)

    def forward(self, out, batch) -> Tensor:
        if self.pooled is None:
            raise OptionError(
                "MEM has not met its host: the trainer calls MEM.bind(host); by hand call it once before training"
            )
        names = list(dict.fromkeys(f"{m}.input" for m, _ in self.directions))
        streams = here(out, batch, names, self)
        losses = []
        for m, n in self.directions:
            if f"{m}.input" in streams and f"{n}.input" in streams:
                mask = counted(batch, m, n)
                labels = torch.where(mask, batch.labels, IGNORE).flatten()
                x, y = (rows(streams[f"{k}.input"], mask) for k in (m, n))
                negative = self.draw(self.similarity(m, n, x, y), labels)
                (x, x_mask), (y, y_mask) = (sequence(out, f"{k}.input", v, mask) for k, v in ((m, x), (n, y)))
                losses.append(self.match(m, n, x, y, labels, negative, x_mask, y_mask))
        loss = total(losses, out) / max(len(losses), 1)
        return loss if self.avel is None else loss + self.alignment * self.avel(out, batch)

    @torch.no_grad()
    def similarity(self, query: str, memory: str, x: Tensor, y: Tensor) -> Tensor:
        """`(N, N)` logits of drawing sample j's memory for sample i's query, from rows `(N, d_query)`, `(N, d_memory)`."""
        with full_precision(x):
            if self.avel is None:
                z = unit(y)
                return z @ z.t() / self.temperature
            a, b = self.avel.project(f"{query}.input", x), self.avel.project(f"{memory}.input", y)
            return a @ b.t() * self.avel.scale()

    @torch.no_grad()
    def draw(self, similarity: Tensor, labels: Tensor) -> Tensor:
        """For each sample the index of one with another label: random in training, else the most similar; itself if none."""
        other = (labels.unsqueeze(1) != labels) & (labels != IGNORE) & (labels != IGNORE).unsqueeze(1)
        if self.training:
            # The largest of logits plus Gumbel noise is a draw from their softmax.
            similarity = similarity - torch.empty_like(similarity).exponential_().clamp(min=1e-20).log()
        chosen = similarity.masked_fill(~other, -math.inf).argmax(1)
        return torch.where(other.any(1), chosen, torch.arange(len(labels), device=labels.device))

    def match(
        self,
        query: str,
        memory: str,
        x: Tensor,
        y: Tensor,
        labels: Tensor,
        negative: Tensor,
        x_mask: Tensor | None = None,
        y_mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of one direction, given the negatives.

        Parameters
        ----------
        x, y : sequences `(N, T, d_query)` and `(N, S, d_memory)` of the same N samples; their masks bool, True where real.
        labels : `(N,)`, -100 for a sample that does not count.
        negative : `(N,)`, the sample whose memory is the wrong one; the sample itself where there is none, which then
            does not count.
        """
        assert self.pooled is not None
        head = self.heads[self.directions.index((query, memory))]
        # The fusion keeps the precision that it was built with.
        dtype = head.get_parameter("weight").dtype
        stacks = getattr(self.pooled, "__self__", head)
        wanted = next((p.dtype for p in stacks.parameters()), dtype)
        both_x, both_y = torch.cat([x, x]).to(wanted), torch.cat([y, y[negative]]).to(wanted)
        masks = [
            None if x_mask is None else torch.cat([x_mask, x_mask]),
            None if y_mask is None else torch.cat([y_mask, y_mask[negative]]),
        ]
        logits = exact(head(self.pooled(query, memory, both_x, both_y, *masks).to(dtype)))
        matched = torch.arange(2 * len(x), device=x.device) < len(x)
        counts = (labels != IGNORE) & (negative != torch.arange(len(x), device=x.device))
        return mean_over(F.cross_entropy(logits, matched.long(), reduction="none"), torch.cat([counts, counts]))


def sequence(out: Any, name: str, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """The frames behind a stream, `(N, S, d)` and their mask; its rows `(N, d)` as sequences of one step without any."""
    if name not in out.sequences:
        return rows.unsqueeze(1), None
    x, real = out.sequences[name]
    counts = mask.flatten().unsqueeze(1)
    real = counts.expand(x.shape[:2]) if real is None else real & counts
    return zero_padded(exact(x), real), real


fusionzoo_register = fusionzoo.plugin(
    MEM,
    summary="Foal-Net's matching: do these two modalities belong together?",
    paper="Li et al., Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition, "
    "Interspeech 2024, arXiv 2408.09438",
    code="ASolitaryMan/Foal-Net@781849fdf6",
    diagram="""
    a["audio of i"] --> p["foal-net stack"]
    v["visual of i"] --> p
    a --> q["foal-net stack"]
    w["visual of j, another emotion"] --> q
    p --> L["match or mismatch"]
    q --> L
    """,
)
