"""What hosts with sequential context encoders share: one encoder behind the fusion, or one per modality before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo._options import check_positive, check_probability
from fusionzoo.host import Host
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.parts.classifier import DialogueAttention
from fusionzoo_adapters.parts.context_encoder import ContextEncoder, encoded
from fusionzoo_adapters.parts.published_fusion import speakers_of
from fusionzoo_adapters.parts.text_views import averaged, views_of, widths_of

#: Encoders with a linear map beside them, so that an utterance's own features reach the fusion unmixed.
LATE_SKIP = "late-skip"


class ContextHost(Host):
    """A host that fuses features before one context encoder, or the contexts after one encoder per modality.

    Placements:

    - `late-skip`: one context encoder per modality, with a linear map of what it reads added to the context, then the fusion.
    - `late`: the same without the linear map: whatever the fusion is to see of an utterance has to come through the encoder.
    - `early`: the fusion of the (standardised) features, then one context encoder.
    - `early-residual`: as `early`, with a linear map of the concatenated features added to what the fusion returns.
    - `parallel`: one context encoder over the concatenated features; beside it the fusion of linear maps of the
      features, to which a linear map of the context is added.

    Subclasses call `build_contexts` and read `contexts`.
    """

    placements: ClassVar[tuple[str, ...]] = (LATE_SKIP, "late", "early", "early-residual")
    #: Whether the context encoders run over padding.
    reads_padding: ClassVar[bool] = False
    #: Options of the attention over the dialogue.
    matching: ClassVar[Mapping[str, bool]] = {}

    def build_contexts(
        self,
        hidden: int,
        *,
        dropout: float,
        input_dropout: float,
        speaker_embedding: int | bool,
        text_views: int = 1,
        views_norm: str = "layer",
        parallel_width: int | None = None,
        directions: int = 2,
        **encoder: Any,
    ) -> int:
        """Build views, encoders and the fusion's place, for contexts of `hidden` per direction.

        Parameters
        ----------
        hidden, directions : of the context encoders.
        dropout : within the encoders, and (see `context_dropout_of`) on the contexts and on what the fusion returns.
        input_dropout : on what the encoders read.
        speaker_embedding : width of a learnt vector per speaker that the encoders read too; True is 16.
        text_views, views_norm : see `Views`.
        parallel_width : of the linear maps of `parallel`; None for that of the contexts.
        encoder : further options of every `ContextEncoder`.

        Returns
        -------
        The width of what `contexts` returns.
        """
        self.views = views_of(self, text_views, views_norm)
        width = directions * check_positive(hidden, "hidden", self)
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.context_dropout = Dropout(self.context_dropout_of(check_probability(dropout, "dropout", self)))
        self.speaker_embedding = speakers_of(self, speaker_embedding)
        extra = 0 if self.speaker_embedding is None else self.speaker_embedding.embedding_dim
        options = {
            "parties": self.num_speakers,
            "directions": directions,
            "reads_padding": self.reads_padding,
            **encoder,
        }
        widths = self.seam("early", widths_of(self.views, self.dims), self.early_width())
        aside = check_positive(parallel_width or width, "parallel_width", self)
        widths = self.seam("parallel", widths, aside, kind="around")
        self.encoders = nn.ModuleList(
            ContextEncoder(w + extra, hidden, **{"dropout": dropout, **options, **self.encoder_options(m)})
            for m, w in widths.items()
        )
        skipped = self.placement == LATE_SKIP and len(self.dims) > 1
        self.skips = nn.ModuleList(nn.Linear(w + extra, width) for w in widths.values() if skipped)
        widths = self.rejoin(dict.fromkeys(widths, width))
        self.behind = LATE_SKIP if skipped else "late"
        (width,) = self.seam(self.behind, widths, "sum").values()
        return width

    def contexts(self, streams: Streams, dialogues: Dialogues) -> Tensor:
        """Fusion and context encoders in the order of the placement, `(B, T, width)`."""
        streams = averaged(self.views, streams, dialogues.present)
        streams = self.fuse_at("early", streams, dialogues)
        streams = self.fuse_at("parallel", streams, dialogues)
        read = {m: x if x is None else self._input(x, dialogues.speakers) for m, x in streams.items()}
        there = [(e, x) for e, x in zip(self.encoders, read.values(), strict=True) if x is not None]
        encoders, xs = zip(*there, strict=True)
        out = encoded(encoders, xs, dialogues.packing, dialogues.mask, dialogues.speakers)
        skips = dict(zip(read, self.skips, strict=True)) if self.skips else {}
        streams = {m: x if x is None else self._context(x, next(out), skips.get(m)) for m, x in read.items()}
        streams = self.rejoined(streams, dialogues)
        late = self.fuse_at(self.behind, streams, dialogues)
        (x,) = late.values()
        assert x is not None
        x = self.context_dropout(x) if late.keys() != streams.keys() else x
        dialogues.streams["context"] = x
        return x

    def attended(self, x: Tensor, attention: DialogueAttention | None, name: str, dialogues: Dialogues) -> Tensor:
        """Contexts after an attention over the dialogue, where there is one."""
        if attention is None:
            return x
        x, weights = attention.over(x, dialogues.mask)
        dialogues.show_attention(**{name: weights})
        return x

    def context_dropout_of(self, dropout: float) -> float:
        """What is dropped of the contexts."""
        return dropout

    def encoder_options(self, stream: str) -> Mapping[str, Any]:
        """Options of the context encoder of one stream that differ from those of the others."""
        return {}

    def early_width(self) -> Any:
        """What an early fusion returns where `fusion_width` does not say it, see `seam`."""
        return None

    def _context(self, x: Tensor, context: Tensor, skip: nn.Module | None) -> Tensor:
        return self.context_dropout(context if skip is None else context + skip(x))

    def _input(self, x: Tensor, speakers: Tensor) -> Tensor:
        x = self.input_dropout(x)
        if self.speaker_embedding is None:
            return x
        return torch.cat([x, self.speaker_embedding(speakers).to(x.dtype)], -1)
