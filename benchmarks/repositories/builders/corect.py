"""CORECT: graph and cross-modal attention; trainers call `get_loss`, because `forward` returns classes."""

from argparse import Namespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask

REPOSITORY = "leson502/CORECT_EMNLP2023"
COMMIT = "96ad0127f2"
LENGTHS = [9, 7, 5, 4]
STREAMS = {(0, "text_tensor"): 0, (0, "audio_tensor"): 0, (0, "visual_tensor"): 0}


def build(root: Any) -> Any:
    """The model for IEMOCAP, six classes."""
    from corect import CORECT

    widths = {"a": 100, "t": 768, "v": 512}
    args = Namespace(
        dataset="iemocap", dataset_embedding_dims={"iemocap": widths}, modalities="atv", wp=11, wf=5, device="cpu",
        hidden_size=100, rnn="transformer", encoder_nlayers=2, use_highway=False, drop_rate=0.5, class_weight=False,
        gcn_conv="rgcn", use_graph_transformer=True, graph_transformer_nheads=7, edge_type="temp_multi", no_gnn=False,
        use_speaker=False, use_crossmodal=True, crossmodal_nheads=2, num_crossmodal=2, self_att_nheads=2,
        num_self_att=3, emotion=None,
    )  # fmt: skip
    model = CORECT(args)
    model.forward = model.get_loss
    audio, text, visual = features(LENGTHS, *widths.values(), time_first=False)
    data = {
        "text_len_tensor": torch.tensor(LENGTHS),
        "text_tensor": text,
        "audio_tensor": audio,
        "visual_tensor": visual,
        "speaker_tensor": torch.randint(2, lengths_mask(LENGTHS).shape),
        "label_tensor": torch.randint(6, (sum(LENGTHS),)),
        "utterance_texts": [["word"] * n for n in LENGTHS],
    }
    return model, Call(data), {}
