"""MMBT (supervised multimodal bitransformer): image and word embeddings in one sequence through one BERT.

`pytorch_pretrained_bert`'s BERT is that of `transformers`, with random weights and two layers; the image encoder is two
convolutions.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call

REPOSITORY = "facebookresearch/mmbt"
COMMIT = "ad71e9c54b"
SAMPLES = 3
STREAMS = {0: 0, 3: 0}
OLD = True  # asks for CUDA


class Encoder(nn.Module):
    """BERT's layers, called as the old package calls them."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Any, mask: Any, output_all_encoded_layers: bool = True) -> Any:
        """The last layer's output, in a list."""
        return [self.encoder(x, attention_mask=mask)[0]]


class Bert(nn.Module):
    """BERT, called as the old package calls it."""

    def __init__(self) -> None:
        super().__init__()
        import transformers

        config = transformers.BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
        bert = transformers.BertModel(config)
        assert bert.pooler is not None
        self.embeddings, self.encoder, self.pooler = bert.embeddings, Encoder(bert.encoder), bert.pooler

    @classmethod
    def from_pretrained(cls, name: str) -> Any:
        """Random weights."""
        return cls()

    def forward(self, txt: Any, token_type_ids: Any, attention_mask: Any, output_all_encoded_layers: bool) -> Any:
        """All steps and the pooled first one."""
        mask = (1.0 - attention_mask[:, None, None].float()) * -10000.0
        x = self.encoder(self.embeddings(txt, token_type_ids), mask)[-1]
        return x, self.pooler(x)


def prepare() -> SimpleNamespace:
    """The missing packages' parts, and the options of `train.py` with small widths."""
    sys.modules["pytorch_pretrained_bert"] = ModuleType("pytorch_pretrained_bert")
    sys.modules["pytorch_pretrained_bert.modeling"] = modeling = ModuleType("pytorch_pretrained_bert.modeling")
    modeling.BertModel = Bert  # type: ignore[attr-defined]
    sys.modules["torchvision"] = torchvision = ModuleType("torchvision")
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 24, 3, 2), nn.Identity(), nn.Identity())
    torchvision.models = SimpleNamespace(resnet152=lambda pretrained: convolutions)  # type: ignore[attr-defined]
    vocabulary = SimpleNamespace(stoi={"[CLS]": 1, "[SEP]": 2})
    return SimpleNamespace(
        bert_model="bert", task="mmimdb", hidden_sz=16, img_hidden_sz=24, num_image_embeds=3, img_embed_pool_type="avg",
        dropout=0.1, n_classes=5, vocab=vocabulary, hidden=[], include_bn=True,
    )  # fmt: skip


def call() -> Call:
    """Word ids with padding, their mask and segments, and images."""
    words, mask = torch.randint(3, 60, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    words[1, 7:] = words[2, 4:] = mask[1, 7:] = mask[2, 4:] = 0
    return Call(words, mask, torch.ones(3, 9, dtype=torch.long), torch.randn(3, 3, 32, 32))


def build(root: Any) -> Any:
    """As `train.py` does."""
    args = prepare()
    from mmbt.models.mmbt import MultimodalBertClf

    return MultimodalBertClf(args), call(), {}
