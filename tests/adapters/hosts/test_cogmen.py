"""COGMEN beside plain formulas: loops over dialogues, nodes and edges, one at a time."""

from __future__ import annotations

import pytest
import torch
from graph_hosts import COG, close, dialogues, graph_attention, make, make_batch, transformer
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.batch import Batch
from fusionzoo.kernels.grouped_attention import Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo_adapters.hosts.cogmen import Cogmen


def plain_cogmen(host: Cogmen, batch: Batch) -> Tensor:
    """Early fusion by concatenation; the window officially mirrored, padding officially attended to."""
    official = host.variant == "official"
    past, future = host.window
    (encoder,) = host.encoders
    out = torch.zeros(*batch.mask.shape, 4)
    for b, n, speakers in dialogues(batch):
        x = torch.cat([f[b] for f in batch.features.values()], -1)
        x = x if official else x[:n]
        g = encoder.onto(transformer(encoder.encoder, 0, encoder.into(x), pre=not official))[:n]
        if host.speakers is not None:
            g = g + host.speakers(speakers[:n])
        windows = [
            [j for j in range(n) if (-past <= i - j <= future if official else -past <= j - i <= future)]
            for i in range(n)
        ]
        conv, h = host.convolution, []
        for i in range(n):
            y = g[i] @ conv.root + conv.bias
            relations = [int(speakers[j] * 2 + speakers[i]) * 2 + (j >= i) for j in windows[i]]
            for r in set(relations):
                same = [g[j] @ conv.weight[r] for j, k in zip(windows[i], relations, strict=True) if k == r]
                y = y + sum(same) / len(same)
            h.append(y)
        z = torch.stack(graph_attention(host.attention, h, windows))
        z = F.leaky_relu(host.norm(z))
        z = torch.cat([g, z], -1) if host.joined else z
        z = z if host.highway is None else host.highway(z)
        out[b, :n] = host.head.out(host.head.hidden(z).relu())
    return out


@pytest.mark.parametrize("variant", ["default", "official"])
@pytest.mark.parametrize(
    "options",
    [{}, {"window_past": 0, "window_future": 3, "joined": False}, {"window_past": None, "highway": True, "heads": 3}],
)
def test_cogmen_is_its_formula(variant, options):
    if options.get("window_past", 0) is None:
        options = {**options, "window_past": 50}
    host = make(Cogmen, placement="early", variant=variant, **{**COG, **options})
    batch = make_batch()
    close(host(batch).logits, plain_cogmen(host, batch))


def test_official_cogmen_weights_go_where_they_belong():
    host = make(Cogmen, {"text": 14}, variant="official", **COG)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(14, 7, batch_first=True), 2, enable_nested_tensor=False)
    state = {f"rnn.transformer_encoder.{k}": torch.randn_like(v) * 0.2 for k, v in encoder.state_dict().items()}
    own = {"gcn.conv1.": host.convolution, "gcn.conv2.": host.attention, "gcn.bn.": host.norm}
    own |= {"clf.lin1.": host.head.hidden, "clf.lin2.": host.head.out, "rnn.transformer_out.": host.encoders[0].onto}
    for prefix, module in own.items():
        state |= {prefix + k: v.clone() for k, v in module.state_dict().items()}
    host.load_reference(state)
    encoder.load_state_dict(
        {k.removeprefix("rnn.transformer_encoder."): v for k, v in state.items() if ".layers." in k}
    )
    batch = make_batch([6, 2], dims={"text": 14})
    mine = host.encoders[0](batch.features["text"], Packing.of(batch), batch.mask, Tokens(Packing.of(batch), True))
    expected = host.encoders[0].onto(encoder.eval()(batch.features["text"]))
    close(mine[batch.mask], expected[batch.mask])
