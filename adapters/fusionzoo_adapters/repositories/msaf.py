"""MSAF re-weighs the channels of recurrent or convolutional networks by each other, and joins them at the end.

Source: https://github.com/anita-hu/MSAF at 125e0f1eef (MIT), MSAF.py, cmu_mosei/networks/msaf_mosei.py and ravdess/networks/msaf_ravdess.py;
none of its code is here. The recurrent network of CMU-MOSEI joins its last states by concatenation, which is the site. The
convolutional one of RAVDESS adds logits; there the site is the stack of pooled channels in its last MSAF block. Both write into
the list that they are given. With current torch the convolutional network needs `fusionzoo.modernise` (views).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import VIEW
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site, Stream
from fusionzoo_adapters.repositories._known import named


class MSAF:
    """Both networks, of all modalities that the published ones have."""

    repairs = (VIEW,)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's names and the unimodal networks inside."""
        return named(model, "MSAFLSTMNet", "visual_model", "audio_model", "text_model", "multimodal_classifier") or (
            named(model, "MSAFNet", "msaf", "video_model_blocks", "audio_model_blocks")
        )

    @classmethod
    def site(cls, model: Any) -> Site:
        """The last states side by side, or the pooled channels stacked."""
        if type(model).__name__ == "MSAFNet":
            return cls.pooled(model)
        ids = {model.visual_id: "visual", model.audio_id: "audio", model.text_id: "text"}
        nets = {"visual": model.visual_model, "audio": model.audio_model, "text": model.text_model}
        streams = [(ids[i], nets[ids[i]][-1].hidden_size) for i in sorted(ids)]
        return declare(model, "", [("forward", "torch.cat(x, -1)")], streams, layout="(B, d)")

    @staticmethod
    def pooled(model: Any) -> Site:
        """The pooled channels `(B, channels, 1)` of both networks, in the last block."""
        path = f"msaf.{len(model.msaf) - 1}.blocks.0"
        width = model.get_submodule(path).block_channel
        names = {model.video_id: "visual", model.audio_id: "audio"}
        streams = [(names[i], width) for i in sorted(names)]
        steps = [("forward", "torch.stack(gap)")]
        site = declare(model, path, steps, streams, kind="stack", axis=0, layout="(B, d)", result=width)
        operands = tuple(Stream(name, (0, w, 1)) for name, w in streams)
        return replace(site, operands=operands, result=(len(streams), 0, width, 1), feature_axis=-2)


fusionzoo_register = fusionzoo.plugin(
    MSAF,
    kind="adapter",
    summary="MSAF: last states side by side, or pooled channels stacked",
    paper="MSAF: Multimodal Split Attention Fusion, https://arxiv.org/abs/2012.07175",
    code="https://github.com/anita-hu/MSAF/tree/125e0f1eef",
    modalities=(2, 3),
)
