"""What every host of dialogues promises; the file of a host subclasses it with a table of builds."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError
from fusionzoo.host import Host
from fusionzoo.testing.batches import dialogues
from fusionzoo.testing.comparisons import reached

DIMS = {"text": 6, "audio": 5, "visual": 4}


def only(batch: Batch, row: int) -> Batch:
    """One dialogue of a batch, without padding."""
    n = batch.lengths_list()[row]

    def cut(x: Tensor) -> Tensor:
        return x[row : row + 1, :n]

    features = {m: cut(x) for m, x in batch.features.items()}
    present = None if batch.present is None else {m: cut(x) for m, x in batch.present.items()}
    return Batch(features, cut(batch.mask), cut(batch.speakers), cut(batch.labels), [batch.ids[row]], present, [n])


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


class DialogueHostTests:
    """Tests of any host of dialogues, whatever its placement and options."""

    HOST: ClassVar[str]
    #: Name -> options; those with the placement "late" or "late-skip" fuse streams of width 8.
    BUILDS: ClassVar[dict[str, dict[str, Any]]]
    #: Builds that are tried with several fusions.
    PLACES: ClassVar[list[str]]
    FUSIONS: ClassVar[list[Any]] = ["concat", "gated", ("gated", {"missing": "learned"}), "sum"]
    #: (build, options, what the message names).
    REFUSALS: ClassVar[list[tuple[str, dict[str, Any], str]]]

    def make(self, build: str, dims=DIMS, fusion="concat", **options) -> Host:
        torch.manual_seed(0)
        host = fusionzoo.get(self.HOST, kind="host")
        return host(dims, 3, 2, fusion=fusion, **{**self.BUILDS[build], **options}).eval()

    @pytest.fixture
    def host(self, build) -> Host:
        return self.make(build)

    def test_shapes_and_zero_padding(self, host):
        batch = dialogues([5, 1, 3], DIMS)
        out = host(batch)
        assert out.logits.shape == (3, 5, 3)
        assert torch.isfinite(out.logits).all()
        assert (out.logits[~batch.mask] == 0).all()
        assert {"fused", "context"} <= set(out.streams)

    def test_padding_is_never_read(self, host):
        expected = host(dialogues([5, 1, 3], DIMS))
        poisoned = dialogues([5, 1, 3], DIMS, steps=9, fill=float("nan"))
        poisoned.speakers[:, 5:] = 1
        out = host(poisoned)
        close(out.logits[:, :5], expected.logits)
        assert (out.logits[:, 5:] == 0).all()
        host.train()
        host.zero_grad()
        host(poisoned).logits.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in host.parameters() if p.grad is not None)

    def test_a_dialogue_does_not_depend_on_its_batch(self, host):
        batch = dialogues([5, 1, 3, 7], DIMS)
        together = host(batch).logits
        for row, n in enumerate(batch.lengths_list()):
            close(host(only(batch, row)).logits[0], together[row, :n])

    def test_gradient_reaches_every_modality_and_parameter(self, host):
        host.train()
        batch = dialogues([6, 3], DIMS)
        for x in batch.features.values():
            x.requires_grad_()
        logits = host(batch).logits
        nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(12) % 3).backward()
        for m, felt in reached({m: x.grad for m, x in batch.features.items()}).items():
            assert felt[batch.mask].any(-1).all(), m
        without = [name for name, p in host.named_parameters() if p.grad is None]
        assert not without

    def test_missing_modalities(self, host):
        batch = dialogues([5, 3], DIMS)
        whole = host(batch).logits
        absent = copy.copy(batch)
        absent.features = {m: x for m, x in batch.features.items() if m != "audio"}
        logits = host(absent).logits
        assert torch.isfinite(logits).all()
        assert not torch.allclose(logits, whole)
        # Missing everywhere by mask, rubbish in the features, is the same as absent where a fusion stands in for both.
        masked = copy.copy(batch)
        masked.features = {**batch.features, "audio": torch.full_like(batch.features["audio"], float("nan"))}
        masked.present = {"audio": torch.zeros_like(batch.mask)}
        close(host(masked).logits, logits)
        half = copy.copy(batch)
        half.present = {"audio": torch.arange(5).expand(2, 5) % 2 == 0}
        alone = host(only(half, 1)).logits
        close(host(half).logits[1:, :3], alone)

    def test_round_trips(self, host):
        batch = dialogues([4, 2], DIMS)
        expected = host(batch).logits
        fresh = copy.deepcopy(host)
        with torch.no_grad():
            for p in fresh.parameters():
                p.add_(1.0)
        assert not torch.allclose(fresh(batch).logits, expected)
        fresh.load_state_dict(host.state_dict(), strict=True)
        torch.testing.assert_close(fresh(batch).logits, expected, atol=0, rtol=0)
        again = pickle.loads(pickle.dumps(host))
        torch.testing.assert_close(again(batch).logits, expected, atol=0, rtol=0)

    def test_takes_any_fusion(self, place, fusion):
        assert self.make(place, fusion=fusion)(dialogues([4, 2], DIMS)).logits.shape == (2, 4, 3)

    def test_takes_a_fusion_instance_with_its_own_names(self, place):
        widths = [8, 8, 8] if self.make(place).placement.startswith("late") else list(DIMS.values())
        fusion = fusionzoo.get("gated")(widths, out_dim=7)
        host = self.make(place, fusion=fusion)
        assert host.fusion is fusion
        batch = dialogues([4, 2], DIMS)
        batch.present = {"audio": torch.arange(4).expand(2, 4) > 0}
        assert host(batch).logits.shape == (2, 4, 3)

    def test_one_modality_needs_no_fusion(self, build):
        host = self.make(build, dims={"text": 6})
        assert host.fusion is None
        assert host(dialogues([4, 2], {"text": 6})).logits.shape == (2, 4, 3)

    def test_impossible_options_are_named(self, refusal):
        build, options, message = refusal
        with pytest.raises(OptionError, match=message):
            self.make(build, **options)

    def test_the_forward_pass_waits_for_no_device(self, place):
        # On the meta device there are no values: whatever asks for one (item, nonzero, a boolean index) raises.
        host = self.make(place).to("meta")
        batch = dialogues([5, 3, 1], DIMS).to("meta")
        assert host(batch).logits.shape == (3, 5, 3)
