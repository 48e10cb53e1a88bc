"""M3NET: a hypergraph and a graph over rows of all modalities; text in four versions, a list."""

from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "feiyuchen7/M3NET"
COMMIT = "4d0fa88cd4"
LENGTHS = [9, 7, 5, 4]
STREAMS = {(0, 0): 1, (0, 1): 1, (0, 2): 1, (0, 3): 1, 4: 1, 5: 1}
OLD = True  # a name that torch-geometric has removed is imported


def build(root: Any) -> Any:
    """The model for IEMOCAP."""
    import torch_geometric.nn.pool.topk_pool as pool

    if not hasattr(pool, "topk"):  # imported, not called
        pool.topk = None
    from model import Model

    model = Model(
        "GRU", 1024, 512, 150, 100, 100, 100, 512, n_speakers=2, max_seq_len=200, window_past=10, window_future=10,
        n_classes=6, dropout=0.5, no_cuda=True, graph_type="hyper", D_m_v=342, D_m_a=1582, modals="avl",
        att_type="concat_DHT",
    )  # fmt: skip
    text = features(LENGTHS, 1024, 1024, 1024, 1024)
    audio, visual = features(LENGTHS, 1582, 342)
    return model, Call(text, speakers(LENGTHS), lengths_mask(LENGTHS).float(), LENGTHS, audio, visual), {}
