"""Loading official weights into hosts built on `ContextHost`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.reference import copy_reference_parts, prefixed
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.frontend import ContextHost

if TYPE_CHECKING:
    from fusionzoo_adapters.hosts.text_cnn import TextCNN


def need_official(host: ContextHost) -> ContextEncoder:
    """The host's one context encoder, if the host can hold the official weights at all.

    Raises `ReferenceWeightsError` unless the host has `variant="official"` and a single context encoder.
    """
    if getattr(host, "variant", "") != "official":
        raise ReferenceWeightsError(
            f"{type(host).__name__}: official weights fit variant='official' only; this host has {host.variant!r}"
        )
    if len(host.encoders) != 1:
        raise ReferenceWeightsError(
            f"{type(host).__name__}: the official model has one context encoder; build the host with placement='early' "
            f"or with one modality, not {host.placement!r} with {len(host.encoders)}"
        )
    encoder = host.encoders[0]
    assert isinstance(encoder, ContextEncoder)
    return encoder


#: Entries of LMAM's hosts that a branch which was not chosen leaves behind.
_LMAM_UNUSED = ("lstm.", "lstm2.", "fc1.", "fc2.", "fc3.", "att.", "matchatt.", "linear2.")


def copy_lmam_reference(
    host: ContextHost | TextCNN, state: Mapping[str, Tensor], parts: Mapping[str, nn.Module], fused: bool
) -> None:
    """Load one of the hosts of yuntaoshou/LMAM: `parts` by official prefix, the text views, and with `fused` the fusion.

    Raises `ReferenceWeightsError`, before anything is copied, when an entry is missing, unknown or of another shape.
    """
    if host.views is None:
        raise ReferenceWeightsError(
            f"{type(host).__name__}: LMAM's hosts take four text views (normBNa to normBNd); build the host with text_views=4"
        )
    parts = {**host.views.reference_parts(), **parts}
    if fused and host.fusion is not None:
        # Through the fusion's own loader, which knows the official names; on a wrong state it raises before the rest.
        host.fusion.load_reference(prefixed(state, "matchatt."))
    copy_reference_parts(parts, state, [p for p in _LMAM_UNUSED if p not in parts])
