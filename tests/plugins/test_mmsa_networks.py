"""Whole networks of the utterance-level literature."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_plugins._mmsa_networks import EarlyFusionLSTM, SubNetworks
from fusionzoo_plugins.lmf import LowRankFusion
from fusionzoo_plugins.tfn import TensorFusion


def network() -> SubNetworks:
    fusion = LowRankFusion({"audio": 3, "video": 2, "text": 4}, 5)
    return SubNetworks({"text": 6, "audio": 7, "video": 8}, fusion, hidden=9).eval()


def test_subnetworks_do_not_read_padded_words():
    net = network()
    x = {"text": torch.randn(2, 5, 6), "audio": torch.randn(2, 7), "video": torch.randn(2, 1, 8)}
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    padded = {**x, "text": torch.where(mask.unsqueeze(-1), x["text"], torch.nan)}
    alone = {"text": x["text"][1:, :3], "audio": x["audio"][1:], "video": x["video"][1:]}
    torch.testing.assert_close(net(padded, mask)[1:], net(alone))


def test_a_refused_state_leaves_a_network_as_it_was():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = {f"{m}_subnet.{k}": v + 1 for m, sub in net.subnets.items() for k, v in sub.state_dict().items()}
    with pytest.raises(ReferenceWeightsError, match="fusion_bias"):
        net.load_reference({**state, "audio_factor": torch.zeros(4, 4, 5)})
    with pytest.raises(ReferenceWeightsError, match="rnn"):
        net.load_reference({k: v for k, v in state.items() if "rnn" not in k})
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_bounded_answers():
    fusion = TensorFusion({"audio": 3, "video": 2, "text": 4}, 1, project=False)
    net = SubNetworks({"text": 6, "audio": 7, "video": 8}, fusion, hidden=9, bounded=True).eval()
    out = net({"text": torch.randn(4, 5, 6) * 99, "audio": torch.randn(4, 7) * 99, "video": torch.randn(4, 8) * 99})
    assert out.abs().max() <= 3


def test_early_fusion_lstm_stops_at_the_last_real_step():
    net = EarlyFusionLSTM({"text": 6, "audio": 3}, 4, hidden=5, layers=2).eval()
    x = {"text": torch.randn(2, 5, 6), "audio": torch.randn(2, 5, 3)}
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    torch.testing.assert_close(net(x, mask)[1:], net({m: v[1:, :2] for m, v in x.items()}))
    normed = EarlyFusionLSTM({"text": 6, "audio": 3}, 4, hidden=5, steps=5)
    assert normed.norm.num_features == 5
