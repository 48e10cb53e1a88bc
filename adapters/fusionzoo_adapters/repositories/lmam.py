"""LMAM's baseline LSTM: low-rank matching of three streams and their sum, or a plain concatenation.

Source: https://github.com/yuntaoshou/LMAM at 1ac9f43823 (no licence stated), baseline/LSTM.py and baseline/LMAM.py; none of its code is
here. With `attention="LMAM"` the streams meet in the function `Matching`, which every baseline imports and which adds three
slices of one stacked list; with `attention="Attention"` in a concatenation before the recurrence. Real steps are `umask`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo.patching.find.search import find_sites
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import InputSite, Site
from fusionzoo_adapters.repositories._known import mask_of, named


class LMAM:
    """`LSTMModel` in either form."""

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, its two recurrences, the projections and what joins the streams."""
        return named(model, "LSTMModel", "lstm2", "fc1", "fc2") and (
            hasattr(model, "matchatt") or hasattr(model, "att")
        )

    @classmethod
    def site(cls, model: Any) -> Site | InputSite:
        """The sum of the matched streams, or the concatenation."""
        text, audio, visual = model.lstm2.input_size, model.fc1.in_features, model.fc2.in_features
        if model.attention == "LMAM":
            return find_sites(model, *cls.example(model))[0]
        streams = [("text", text), ("audio", audio), ("visual", visual)]
        return declare(model, "", [("forward", "torch.cat((textf, acouf, visuf)")], streams, layout="(T, B, d)")

    @staticmethod
    def example(model: Any) -> tuple[Any, ...]:
        """A small call."""
        like = model.fc1.weight

        def stream(width: int) -> Tensor:
            return torch.randn(5, 3, width, device=like.device, dtype=like.dtype)

        with torch.random.fork_rng(devices=[]):
            text = [stream(model.lstm2.input_size) for _ in range(4)]
            audio, visual = stream(model.fc1.in_features), stream(model.fc2.in_features)
        umask = torch.tensor([[1.0] * n + [0.0] * (5 - n) for n in (5, 4, 2)], device=like.device, dtype=like.dtype)
        return text, audio, visual, umask.T.unsqueeze(-1).expand(5, 3, 2), umask

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Which steps are real."""
        return mask_of(args, kwargs, 4, "umask")


fusionzoo_register = fusionzoo.plugin(
    LMAM,
    kind="adapter",
    summary="LMAM: the baseline LSTM with low-rank matching attention, or with a concatenation",
    paper="A Low-Rank Matching Attention Based Cross-Modal Feature Fusion Method for Conversational Emotion Recognition, https://arxiv.org/abs/2306.17799",
    code="https://github.com/yuntaoshou/LMAM/tree/1ac9f43823",
    modalities=(3, 3),
)
