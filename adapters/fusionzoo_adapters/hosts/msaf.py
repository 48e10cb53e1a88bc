"""MSAF's network of sequences: two LSTMs per modality, with a fusion between them that keeps every stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo._registry import registry
from fusionzoo.clip_host import ClipHost, EncoderLike
from fusionzoo.encoders.outputs import Encoded
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, read_dims
from fusionzoo.host import FusionLike, name_and_options
from fusionzoo.numerics import lstm_precision, zero_padded
from fusionzoo.specs import plain_name

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


class MSAF(ClipHost):
    r"""Two LSTMs per modality with multimodal split attention between them, and a linear map of their last steps.

    .. math:: h_m = \operatorname{LSTM}_m(x_m), \quad \tilde h = \operatorname{fusion}(h), \quad
              \text{logits} = W\,[\operatorname{LSTM}'_m(\tilde h_m)_{\text{last}}]_m + b

    A fusion that reweighs feature maps and keeps them (msaf, mmtm, cfn-sr) is in the middle, as published; any other takes the
    last steps of the second LSTMs.

    Options
    -------
    channels : modality -> width of its LSTMs, or one width; default 64. Published on CMU-MOSEI: visual 32, audio 64, text 128.
    encoders, pool, sequence_dropout, fusion_width : see `ClipHost`.
    variant : see `variants`.

    Source: Su et al., "MSAF: Multimodal Split Attention Fusion", arXiv 2012.07175; code anita-hu/MSAF@125e0f1eef,
    `cmu_mosei/networks/msaf_mosei.py`, with 16 channels a block, 5 segments, half as many joint features.

    Shapes: clips, or features `(B, T, d_m)`, to logits `(B, T, C)`; utterances know nothing of each other.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.msaf:OfficialMSAF"}
    own = "msaf"
    channels: dict[str, int]
    in_the_middle: bool

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "msaf",
        placement: str | None = None,
        *,
        channels: int | Mapping[str, int] = 64,
        encoders: Mapping[str, EncoderLike] | None = None,
        pool: str = "mean",
        sequence_dropout: float = 0.0,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        names = list(read_dims(dims, self))
        each = dict.fromkeys(names, channels) if isinstance(channels, int) else dict(channels)
        if sorted(each) != sorted(names):
            raise OptionError(f"MSAF: channels names {', '.join(map(str, each))}, the data have {', '.join(names)}")
        # Before nn.Module is set up only plain values can be kept.
        self.channels = {m: check_positive(each[m], "channels", self) for m in names}
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            encoders=encoders,
            pool=pool,
            sequence_dropout=sequence_dropout,
            fusion_width=fusion_width,
        )
        widths = self.channels
        self.first = nn.ModuleDict({m: nn.LSTM(self.widths[m], widths[m], batch_first=True) for m in names})
        self.second = nn.ModuleDict({m: nn.LSTM(widths[m], widths[m], batch_first=True) for m in names})
        self.head = nn.Linear(sum(widths.values()) if self.in_the_middle else self.fused_width, self.num_classes)

    def _fused_dims(self) -> dict[str, int]:
        self.in_the_middle = len(self.dims) > 1 and hasattr(self._fusion_class(), "on_maps")
        return self.channels

    def _fusion_class(self) -> Any:
        fusion = self.fusion_like
        if isinstance(fusion, Fusion):
            return fusion
        if isinstance(fusion, Mapping):
            fusion = name_and_options(fusion)
        return registry.get(fusion[0] if isinstance(fusion, tuple) else fusion)

    def _prepared(self, fusion: FusionLike, own: dict[str, Any]) -> FusionLike:
        """In the middle its own output is not read: the width that builds no map."""
        prepared = super()._prepared(fusion, own)
        if hasattr(self._fusion_class(), "on_maps") and isinstance(prepared, tuple):
            more = {"width": list(self.channels.values())[1]} if plain_name(prepared[0]) == "cfn-sr" else {}
            return prepared[0], {"out_dim": sum(self.channels.values()), **more, **prepared[1]}
        return prepared

    def fuse(self, batch: Batch) -> tuple[Fused, dict[str, Tensor]]:
        encoded = {m: None if e is None else self.run(self.first, m, e) for m, e in self.sequences(batch).items()}
        if not self.in_the_middle:
            return self.fuse_sequences({m: None if e is None else self.last_state(m, e) for m, e in encoded.items()})
        fused, masks = self.fuse_sequences(encoded)
        last = []
        for m, e in encoded.items():
            if e is None:
                last.append(fused.fused.new_zeros(len(fused.fused), self.channels[m]))
            else:
                last.append(self.last_state(m, Encoded(fused.streams[m].view_as(e.states), e.mask)).states.squeeze(1))
        return Fused(torch.cat(last, -1), fused.streams, fused.attention, fused.losses), masks

    def run(self, networks: nn.ModuleDict, name: str, encoded: Encoded) -> Encoded:
        """The states of a modality's LSTM."""
        network: nn.LSTM = networks[name]  # type: ignore[assignment]
        with lstm_precision(encoded.states, network.get_parameter("weight_ih_l0")) as x:
            states, _ = network(x)
        return Encoded(zero_padded(states, encoded.mask if self.masked else None), encoded.mask)

    def last_state(self, name: str, encoded: Encoded) -> Encoded:
        """The second LSTM's state at the last real step, as a sequence of one."""
        states, mask = self.run(self.second, name, encoded)
        place = (mask * torch.arange(mask.shape[1], device=mask.device)).amax(1)
        last = states.gather(1, place.view(-1, 1, 1).expand(-1, 1, states.shape[-1]))
        return Encoded(last, mask.any(1, keepdim=True))


fusionzoo_register = fusionzoo.plugin(
    MSAF,
    summary="two LSTMs per modality with a fusion between them that keeps the streams",
    paper="Su et al., MSAF: Multimodal Split Attention Fusion, arXiv 2012.07175",
    code="anita-hu/MSAF@125e0f1eef",
    level="sequence",
)
