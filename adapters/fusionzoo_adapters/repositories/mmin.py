"""MMIN's fusion baseline joins the embeddings of its three encoders before the classifier.

Source: https://github.com/AIM3-RUC/MMIN at 69a45fedff (MIT), models/utt_fusion_model.py; none of its code is here. The official class is no
`nn.Module`: wrap it in one whose `forward` calls `set_input` and `forward`, with its networks netA, netL, netV and netC as
submodules. The site is what `netC` is given. One vector per utterance: no step is padding.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.sites import InputSite


class MMIN:
    """A module with the baseline's networks, whatever it is called."""

    parts = (("A", "audio", "LSTMEncoder"), ("L", "text", "TextCNN"), ("V", "visual", "LSTMEncoder"))

    @classmethod
    def recognise(cls, model: nn.Module) -> bool:
        """Told by the networks' names and classes: a classifier and two encoders or three."""
        nets = [getattr(model, f"net{k}", None) for k, _, _ in cls.parts]
        kinds = [type(n).__name__ == c for n, (_, _, c) in zip(nets, cls.parts, strict=True) if n is not None]
        return type(getattr(model, "netC", None)).__name__ == "FcClassifier" and len(kinds) > 1 and all(kinds)

    @classmethod
    def site(cls, model: Any) -> InputSite:
        """What the classifier is given: audio, text, visual."""
        widths = {}
        for key, name, _ in cls.parts:
            net = getattr(model, f"net{key}", None)
            if net is not None:
                widths[name] = net.hidden_size if hasattr(net, "hidden_size") else net.embd[0].out_features
        return InputSite("x", widths, "(B, d)", path="netC")


fusionzoo_register = fusionzoo.plugin(
    MMIN,
    kind="adapter",
    summary="MMIN: the fusion baseline's embeddings, before the classifier",
    paper="Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities, ACL 2021",
    code="https://github.com/AIM3-RUC/MMIN/tree/69a45fedff",
    modalities=(2, 3),
)
