"""MMSA's memory and late fusion networks join the last states of their recurrences, or the vectors of their subnetworks.

Source: https://github.com/thuiar/MMSA at a94e65d07f (MIT), src/MMSA/models/singleTask/MFN.py, Graph_MFN.py and LF_DNN.py; none of its code is
here. In MFN and Graph-MFN the site is the last concatenation, passed once a call; the joins within the loop over time are sites
too, found by `find_sites`. The memory beside the three states is no stream. One vector per utterance: no step is padding.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import named


class MMSA:
    """`MFN`, `Graph_MFN` and `LF_DNN`, alone or inside the wrapper `AMIO`."""

    layout = "(B, d)"

    @staticmethod
    def inner(model: Any) -> Any:
        """The model inside the wrapper."""
        return model.Model if named(model, "AMIO", "Model") else model

    @classmethod
    def recognise(cls, model: nn.Module) -> bool:
        """Told by the class's names and parts."""
        model = cls.inner(model)
        memory = ("lstm_l", "lstm_a", "lstm_v", "gamma1_fc1", "out_fc1")
        return (
            named(model, "MFN", *memory)
            or named(model, "Graph_MFN", *memory, "graph_mfn")
            or named(model, "LF_DNN", "audio_subnet", "video_subnet", "text_subnet", "post_fusion_layer_1")
        )

    @classmethod
    def site(cls, model: Any) -> Site:
        """The vectors side by side."""
        path = "Model" if cls.inner(model) is not model else ""
        inner = cls.inner(model)
        if type(inner).__name__ == "LF_DNN":
            code = "torch.cat([audio_h, video_h, text_h]"
            streams = [("audio", inner.audio_hidden), ("visual", inner.video_hidden), ("text", inner.text_out)]
        else:
            code = "torch.cat([last_h_l, last_h_a, last_h_v, last_mem]"
            streams = [("text", inner.dh_l), ("audio", inner.dh_a), ("visual", inner.dh_v), ("", inner.mem_dim)]
        return declare(model, path, [("forward", code)], streams, layout="(B, d)")


fusionzoo_register = fusionzoo.plugin(
    MMSA,
    kind="adapter",
    summary="MMSA: last states or subnetworks of three modalities side by side",
    paper="M-SENA: An Integrated Platform for Multimodal Sentiment Analysis, https://arxiv.org/abs/2203.12441",
    code="https://github.com/thuiar/MMSA/tree/a94e65d07f",
    modalities=(3, 3),
)
