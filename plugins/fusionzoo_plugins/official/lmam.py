"""LMAM as yuntaoshou/LMAM@1ac9f43823 has it, `baseline/LMAM.py`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Fused, Streams
from fusionzoo.layers import MatchingAttention
from fusionzoo_plugins.lmam import LMAM


class OfficialLMAM(LMAM):
    r"""What the published code computes.

    A full d x d map W (`rank` is ignored), text alone is memory and residual, scores are not scaled, and the contexts of
    the first three modalities are added:

    .. math:: y_i = \operatorname{GELU}\big(\textstyle\sum_{m \le 3} \sum_j a^m_{ij} x^t_j\big) + x^t_i, \qquad
              a^m_{ij} = \operatorname{softmax}_j \tanh\langle W x^m_i + b, x^t_j\rangle

    Parameters: :math:`d^2 + d` for the matching map, plus projections, which the official module has not: its weights
    fit modalities of one width.
    """

    variant = "official"

    def build_match(self, rank: int | None) -> None:
        if len(self.dims) < 3:
            raise OptionError(
                f"LMAM(variant='official') adds the contexts of three modalities, got {len(self.dims)} "
                f"({', '.join(self.names)}); the default variant takes two or more"
            )
        if rank is not None:
            check_positive(rank, "rank", self)
        self.rank = self.width
        self.matchatt = MatchingAttention(self.width, self.width, form="general2", tanh=True)
        nn.init.normal_(self.matchatt.transform.weight, std=0.01)

    def fuse_projected(self, xs: list[Tensor], streams: Streams) -> Fused:
        fused, contexts, weights = self.match(xs[0], xs, streams.present[0])
        names = self.names[:3]
        maps = {f"{m}->{self.anchor}": w for m, w in zip(names, weights, strict=True)}
        return Fused(fused, dict(zip(names, contexts, strict=True)), maps if streams.attention else {})

    def match(
        self, memory: Tensor, queries: list[Tensor], mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The published matching itself, at padded positions too, over any memory.

        Parameters
        ----------
        memory : `(B, T, d)`.
        queries : three or more `(B, T, d)`; those after the third are not used, as upstream.
        mask : bool `(B, T)`, the memory's real steps.

        Returns
        -------
        The fused `(B, T, d)`, and per query the context `(B, T, d)` and the weights `(B, T, T)`.
        """
        steps = memory.shape[1]
        contexts, weights = self.matchatt(memory, torch.cat(queries[:3], 1), mask)
        parts = contexts.split(steps, 1)
        fused = F.gelu(parts[0] + parts[1] + parts[2])
        return (fused + memory if self.residual else fused), parts, weights.split(steps, 1)

    def reference_names(self) -> Mapping[str, str]:
        return {"transform.": "matchatt.transform"}

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {k.removeprefix("matchatt."): v for k, v in state_dict.items()}  # as LMAM's hosts name it
