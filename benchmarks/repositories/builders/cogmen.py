"""COGMEN: the data set joins the features; trainers call `get_loss`, because `forward` returns classes."""

import sys
from argparse import Namespace
from typing import Any
from unittest import mock

import torch

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask

REPOSITORY = "Exploration-Lab/COGMEN"
COMMIT = "8c00c9bfec"
LENGTHS = [9, 7, 5, 4]
STREAMS = {(0, "input_tensor"): 0}


def build(root: Any) -> Any:
    """The model for IEMOCAP, six classes."""
    sys.modules["sentence_transformers"] = mock.MagicMock()  # makes an encoder of raw text when it is imported
    from cogmen import COGMEN

    args = Namespace(
        dataset="iemocap", emotion=None, rnn="transformer", hidden_size=100, concat_gin_gout=False, wp=5, wf=5,
        device="cpu", drop_rate=0.5, class_weight=False, seqcontext_nlayer=2, gnn_nheads=7, use_highway=False,
        use_pe_in_seqcontext=False, modalities="atv", trans_encoding=False, encoding=None, num_bases=7, tuning=False, log_in_comet=False,
        dataset_embedding_dims={"iemocap": {"atv": 100 + 768 + 512}},
    )  # fmt: skip
    model = COGMEN(args)
    model.forward = model.get_loss
    real = lengths_mask(LENGTHS)
    data = {
        "text_len_tensor": torch.tensor(LENGTHS),
        "input_tensor": features(LENGTHS, 1380, time_first=False)[0],
        "speaker_tensor": torch.randint(2, real.shape),
        "label_tensor": torch.randint(6, (sum(LENGTHS),)),
        "utterance_texts": [["word"] * n for n in LENGTHS],
    }
    widths = {"data['input_tensor']": {"audio": 100, "text": 768, "visual": 512}}
    return model, Call(data), {"modalities": widths}
