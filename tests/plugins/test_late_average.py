"""Tests of late-average."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError
from fusionzoo.testing.comparisons import gradients, reached
from fusionzoo_adapters.hosts.bc_lstm import BcLSTM
from fusionzoo_plugins.late_average import LateAverage
from fusionzoo_plugins.late_product import LateProduct
from fusionzoo_plugins.multiplicative import Multiplicative
from fusionzoo_plugins.multiplicative_loss import Multiplicative as MultiplicativeLoss

DIMS = {"text": 6, "audio": 5, "visual": 4}
C = 3


def experts(fusion, streams):
    return [e(x) for e, x in zip(fusion.experts, streams, strict=True)]


def streams():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, d, generator=generator) for d in DIMS.values()]


def test_late_average_of_probabilities_and_of_logits():
    x = streams()
    fusion = LateAverage(DIMS, C)
    p = torch.stack([e.softmax(-1) for e in experts(fusion, x)]).mean(0)
    torch.testing.assert_close(fusion(x).exp(), p)
    fusion = LateAverage(DIMS, C, average="logits")
    torch.testing.assert_close(fusion(x), torch.stack(experts(fusion, x)).mean(0))
    with pytest.raises(OptionError, match="'probabilities', 'logits'"):
        LateAverage(DIMS, C, average="mean")


@pytest.mark.parametrize("cls", [LateAverage, LateProduct, Multiplicative])
def test_an_absent_modality_has_no_vote(cls):
    x = streams()
    fusion = cls(DIMS, C)
    # The bias of an absent modality's expert would vote if only its features were zero.
    alone = cls({"text": 6, "audio": 5}, C)
    alone.experts.load_state_dict({k: v for k, v in fusion.experts.state_dict().items() if k[0] != "2"})
    torch.testing.assert_close(fusion([*x[:2], None]), alone(x[:2]))
    mask = torch.tensor([[True, True, False, True]] * 2)
    one = fusion(x, {"text": torch.ones(2, 4, dtype=torch.bool), "audio": mask, "visual": mask})[:, 2]
    torch.testing.assert_close(one.softmax(-1), fusion.experts[0](x[0][:, 2]).softmax(-1))


def test_the_objective_reads_the_experts_through_a_host():
    fusion = Multiplicative({"text": 8, "audio": 8}, C)
    host = BcLSTM({"text": 6, "audio": 5}, C, 2, fusion=fusion, fusion_width=C, hidden=4, head_width=8)
    labels = torch.tensor([[0, 1, 2], [1, -100, -100]])
    mask = labels >= 0
    features = {"text": torch.randn(2, 3, 6), "audio": torch.randn(2, 3, 5)}
    batch = Batch(features, mask, torch.zeros_like(labels), labels, ["a", "b"], None, [3, 1])
    MultiplicativeLoss(C)(host(batch), batch).backward()
    felt = reached(gradients(fusion))
    assert all(felt[f"experts.{i}.weight"].any() for i in range(2))
