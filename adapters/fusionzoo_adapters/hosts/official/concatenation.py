"""What hosts have in common whose official models concatenate text, audio and visual in the end."""

from __future__ import annotations

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.host import Host
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.parts.streams import as_nodes


def letters_of(host: Host, letters: str) -> list[str]:
    """The official letter of each modality: text, audio and visual by name, else in this order.

    Raises `ReferenceWeightsError` unless the host can hold official weights: the fusion `late` and nothing but
    concatenation, and the modalities in the order text, audio, visual.
    """
    me = type(host).__name__.removeprefix("Official")
    known = dict(zip(("text", "audio", "visual"), letters, strict=True))
    named = [known[m] for m in host.names if m in known]
    order = named if len(named) == len(host.names) else list(letters)[: len(host.names)]
    if [x for x in letters if x in order] != order or len(order) != len(host.names):
        raise ReferenceWeightsError(
            f"{me}: official weights are for text, audio and visual in this order, not {', '.join(host.names)}"
        )
    if host.fusion is not None and (host.placement != "late" or list(host.fusion.parameters())):
        raise ReferenceWeightsError(
            f"{me}: the official model concatenates its modalities; build the host with placement='late', "
            "fusion='concat' and no fusion_width to load its weights"
        )
    return order


def padded_nodes(host: Host, streams: Streams, dialogues: Dialogues) -> list[Tensor]:
    """Streams as nodes, padding counted in: what the encoders, or the map of a fused stream, make of it is read."""
    if host.fusion is not None and host.placement == "pre-graph":
        streams = {**streams, "fused": host.join(dialogues.streams["fused"])}
    return as_nodes(streams, {m: there | ~dialogues.mask for m, there in dialogues.present.items()})
