"""Visual question answering of the BLOCK paper: attention over regions by a fusion, then the fusion of both: BLOCK.

Skip-thoughts are a GRU with random weights; the loggers of `bootstrap` are replaced.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call

REPOSITORY = "Cadene/block.bootstrap.pytorch"
COMMIT = "e938e9e269"
SAMPLES = 3
STREAMS = {(0, "visual"): 0, (0, "question"): 0}


class Words(nn.Module):
    """A GRU over word embeddings, in the place of skip-thoughts."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(50, 8), nn.GRU(8, 16, batch_first=True)

    def _select_last(self, x: Any, lengths: Any) -> Any:
        return torch.stack([x[i, n - 1] for i, n in enumerate(lengths)])


def prepare() -> None:
    """The missing packages' parts."""
    names = (
        "skipthoughts",
        "bootstrap",
        "bootstrap.datasets",
        "bootstrap.lib",
        "bootstrap.lib.options",
        "bootstrap.lib.logger",
    )
    for name in names:
        sys.modules[name] = ModuleType(name)
    sys.modules["skipthoughts"].BayesianUniSkip = Words  # type: ignore[attr-defined]
    sys.modules["bootstrap.datasets"].transforms = None  # type: ignore[attr-defined]
    sys.modules["bootstrap.lib.options"].Options = None  # type: ignore[attr-defined]
    logger = SimpleNamespace(log_value=lambda *args, **kwargs: None)
    sys.modules["bootstrap.lib.logger"].Logger = lambda: logger  # type: ignore[attr-defined]


def network(**fusion: Any) -> Any:
    """The network and its call with one fusion, with small widths."""
    prepare()
    from block.models.networks.vqa_net import VQANet

    words = {"name": "skipthoughts", "type": "BayesianUniSkip", "dir_st": "", "dropout": 0.25, "fixed_emb": False}
    attention = {"mlp_glimpses": 2, "fusion": {**fusion, "input_dims": [16, 24], "output_dim": 20}}
    classify = {"fusion": {**fusion, "input_dims": [16, 48], "output_dim": 7}}
    model = VQANet(words, False, attention, classify, wid_to_word={1: "a"})
    question = torch.randint(1, 50, (3, 9))
    question[1, 7:] = question[2, 4:] = 0
    batch = {"visual": torch.randn(3, 6, 24), "question": question, "lengths": torch.tensor([[9], [7], [4]])}
    return model, Call(batch), {"modalities": {"batch['visual']": "visual", "batch['question']": "text"}}


def build(root: Any) -> Any:
    """With this fusion in both places."""
    return network(type="block", mm_dim=24, chunks=3, rank=2)
