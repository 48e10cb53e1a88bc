"""What the hosts of declare-lab/conv-emotion @6128ca2 have in common that differs from ours, and the names of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.context_host import ContextHost
from fusionzoo_adapters.parts.dialogue_rnn import DialogueRNN

#: Classifier and matching attention of `LSTMModel`, `GRUModel`, `DialogRNNModel` and `BiModel`.
HEAD_NAMES = {"linear.": "head.hidden", "smax_fc.": "head.out"}


def encoder_names(encoder: ContextEncoder, path: str) -> dict[str, str]:
    """The weights of a context encoder that is the host's module `path`."""
    if not isinstance(encoder.rnn, DialogueRNN):
        return {f"{'base_linear' if encoder.base == 'none' else encoder.base}.": f"{path}.rnn"}
    names = {"dialog_rnn_f.dialogue_cell.": f"{path}.rnn.forward_cell"}
    if encoder.rnn.backward_cell is not None:
        names["dialog_rnn_r.dialogue_cell."] = f"{path}.rnn.backward_cell"
    return names


class ConvEmotionHost(ContextHost):
    """Context encoders that read padding, no speaker embedding, and an attention whose result replaces the utterance."""

    placements: ClassVar[tuple[str, ...]] = ("late", "early", "early-residual")
    reads_padding = True
    matching: ClassVar[Mapping[str, bool]] = {"scaled": False, "tanh": True, "residual": False}
    fixed: ClassVar[Mapping[str, object]] = {"speaker_embedding": False}

    def context_dropout_of(self, dropout: float) -> float:
        return 0.0

    def encoder_names(self) -> dict[str, str]:
        """The weights of the one context encoder.

        Raises `ReferenceWeightsError` where there are several.
        """
        if len(self.encoders) != 1:
            raise ReferenceWeightsError(
                f"{type(self).__name__}: the official model has one context encoder; build the host with placement='early' "
                f"or with one modality, not {self.placement!r} with {len(self.encoders)}"
            )
        (encoder,) = self.encoders
        assert isinstance(encoder, ContextEncoder)
        return encoder_names(encoder, "encoders.0")

    def reference_names(self) -> Mapping[str, str]:
        matching = {} if self.attention is None else {"matchatt.": "attention"}
        return {**self.encoder_names(), **HEAD_NAMES, **matching}
