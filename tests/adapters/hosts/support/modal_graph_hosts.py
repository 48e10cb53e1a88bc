"""What MMGCN and MM-DFN both promise; each file subclasses it with its own options."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from dialogue_hosts import DIMS, close, only
from torch import Tensor, nn

from fusionzoo import kernels
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.host import Host
from fusionzoo.testing.batches import dialogues
from fusionzoo.testing.comparisons import reached

SMALL = {"hidden": 4, "graph_width": 5, "depth": 2, "dropout": 0.0}
LENGTHS = [5, 1, 3, 9, 8]


class ModalGraphHostTests:
    """Tests of a host whose nodes are the utterances of every modality."""

    CLASS: ClassVar[type[Host]]
    #: Options with which the official variant takes weights.
    OFFICIAL: ClassVar[dict[str, Any]] = {}
    #: (options, what the message names).
    REFUSALS: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({"graph": "mmgcn"}, "modal"),
        ({"anchor": "words"}, "anchor"),
        ({"context": "some"}, "context"),
        ({"depth": 0}, "depth"),
        ({"graph_width": -1}, "graph_width"),
        ({"input_width": 5}, "single stream"),
        ({"placement": "early", "context": "none", "input_width": 5}, "twice hidden"),
        ({"placement": "middle"}, "placement"),
        ({"dropout": 2.0}, "dropout"),
        ({"depht": 3}, "depth"),
    ]

    def make(self, dims=DIMS, **options) -> Host:
        torch.manual_seed(0)
        return self.CLASS(dims, 3, 2, **{**SMALL, **options}).eval()

    def test_impossible_options_are_named(self, refusal):
        options, message = refusal
        with pytest.raises(OptionError, match=message):
            self.make(**options)

    def test_the_default_depends_on_no_padding_and_no_batch(self):
        host = self.make(layers=2, context="all", modal_embedding=True)
        batch = dialogues(LENGTHS, DIMS)
        logits = host(batch).logits
        for row, n in enumerate(LENGTHS):
            close(host(only(batch, row)).logits[0], logits[row, :n])

    @pytest.mark.parametrize("placement", ["late", "pre-graph", "early"])
    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_any_number_of_modalities(self, placement, count):
        dims = {f"m{i}": 3 + i for i in range(count)}
        host = self.make(dims, placement=placement, fusion="gated")
        out = host(dialogues([4, 2], dims))
        assert out.logits.shape == (2, 4, 3)
        assert out.attention == {}
        several = count > 1 and placement != "early"
        assert (set(dims) <= set(out.streams)) == (several or count == 1)
        host.keep_attention = True
        edges = host(dialogues([4, 2], dims)).attention["edges"]
        nodes = 1 if not several else count + (placement == "pre-graph")
        assert edges.shape == (2, nodes, 4, 4)

    @pytest.mark.parametrize("graph", ["modal", "deep", "relation", "none"])
    @pytest.mark.parametrize("variant", ["default", "official"])
    def test_every_graph_at_every_placement(self, graph, variant):
        for placement in self.CLASS.placements:
            # So wide that not every unit of a ReLU is dead.
            host = self.make(graph=graph, placement=placement, variant=variant, graph_width=32).train()
            batch = dialogues([4, 2], DIMS)
            for x in batch.features.values():
                x.requires_grad_()
            nn.functional.cross_entropy(host(batch).logits.flatten(0, 1), torch.arange(8) % 3).backward()
            for m, felt in reached({m: x.grad for m, x in batch.features.items()}).items():
                assert felt[batch.mask].any(), m

    def test_an_absent_modality_has_no_node(self):
        host = self.make()
        batch = dialogues([5, 3], DIMS)
        absent = copy.copy(batch)
        absent.features = {m: x for m, x in batch.features.items() if m != "audio"}
        masked = copy.copy(batch)
        masked.features = {**batch.features, "audio": torch.full_like(batch.features["audio"], torch.nan)}
        masked.present = {"audio": torch.zeros_like(batch.mask)}
        close(host(masked).logits, host(absent).logits)
        host.keep_attention = True
        edges = host(masked).attention
        assert (edges["edges"][:, 1] == 0).all()
        assert (edges["edges.across"][:, 1] == 0).all()
        assert (edges["edges"][:, 0].diagonal(dim1=1, dim2=2)[batch.mask] > 0).all()

    def test_the_forward_pass_waits_for_no_device(self):
        # On the meta device there are no values: whatever asks for one raises.
        for options in ({}, {"placement": "pre-graph"}, {"graph": "deep"}, {"graph": "relation"}):
            host = self.make(**options).to("meta")
            batch = dialogues([5, 3, 1], DIMS).to("meta")
            with kernels.use("fast"):  # torch's packed sequences do wait
                assert host(batch).logits.shape == (3, 5, 3)

    def test_official_weights_fit_concatenations_in_any_order(self):
        official = ("audio", "visual", "text")
        host = self.make({m: DIMS[m] for m in official}, anchor="text", variant="official", **self.OFFICIAL)
        state = _official_state(host)
        host.load_reference(state)
        ours = self.make(variant="official", **self.OFFICIAL)
        ours.load_reference(state)
        batch = dialogues([4, 2], DIMS)
        close(ours(batch).logits, host(batch).logits)
        before = copy.deepcopy(ours.state_dict())
        with pytest.raises(ReferenceWeightsError, match=r"other\.weight"):
            ours.load_reference({**state, "other.weight": torch.zeros(2)})
        with pytest.raises(ReferenceWeightsError, match="missing"):
            ours.load_reference({k: v + 1 for k, v in state.items() if k != "smax_fc.bias"})
        assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
        with pytest.raises(ReferenceWeightsError, match="official"):
            self.make().load_reference(state)
        with pytest.raises(ReferenceWeightsError, match="pre-graph"):
            self.make(variant="official", placement="pre-graph").load_reference(state)
        other = self.make({"text": 6, "thermal": 4}, variant="official")
        with pytest.raises(ReferenceWeightsError, match="thermal"):
            other.load_reference(state)
        single = self.make({"text": 6}, variant="official")
        with pytest.raises(ReferenceWeightsError, match="two modalities"):
            single.load_reference(state)


def _official_state(host) -> dict[str, Tensor]:
    """Random official weights for a host, with the entries that take no part."""
    parts = {prefix: host.get_submodule(path) for prefix, path in host.reference_names().items()}
    torch.manual_seed(3)
    made = {f"{p}{k}": torch.randn_like(v) for p, m in parts.items() for k, v in m.state_dict().items()}
    return {**made, "att_model.scalar.weight": torch.zeros(1), "gatedatt.transform_a.bias": torch.zeros(1)}
