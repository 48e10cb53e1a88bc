"""Loading official weights into hosts built on `ContextHost`."""

from __future__ import annotations

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_adapters.hosts._context import ContextEncoder
from fusionzoo_adapters.hosts._frontend import ContextHost


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
