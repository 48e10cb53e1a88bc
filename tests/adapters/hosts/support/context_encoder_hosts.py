"""What every host built on context encoders promises, whatever its placement and base."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from dialogue_hosts import DIMS, DialogueHostTests, close
from torch import nn

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.testing.batches import dialogues

# A classifier this wide has no seed with which every unit of its ReLU is dead.
SMALL = {"hidden": 4, "head_width": 32, "dropout": 0.0}


class ContextEncoderHostTests(DialogueHostTests):
    """Tests of a host that reads who speaks and takes official weights of one stream."""

    #: Builds whose official variant takes weights.
    OFFICIALS: ClassVar[list[str]]

    def test_speakers_matter(self, host):
        batch = dialogues([6], DIMS)
        expected = host(batch).logits
        batch.speakers = 1 - batch.speakers
        assert not torch.allclose(host(batch).logits, expected, atol=1e-6)

    def test_more_speakers_than_the_host_was_built_for(self, host):
        batch = dialogues([6], DIMS)
        batch.speakers[0] = torch.tensor([0, 1, 2, 3, 1, 7])
        merged = copy.copy(batch)
        merged.speakers = batch.speakers.clamp(max=1)
        close(host(batch).logits, host(merged).logits)

    def test_input_dropout_acts_in_training_only(self, build):
        noisy = self.make(build, input_dropout=0.5)
        batch = dialogues([6], DIMS)
        torch.testing.assert_close(noisy(batch).logits, noisy(batch).logits, atol=0, rtol=0)
        noisy.train()
        assert not torch.allclose(noisy(batch).logits, noisy(batch).logits)

    def test_official_variant_loads_only_what_it_knows(self, official):
        host = self.make(official, dims={"text": 6}, variant="official")
        weights = {
            f"{prefix}{key}": torch.randn_like(value) if value.is_floating_point() else value
            for prefix, module in _official_parts(host).items()
            for key, value in module.state_dict().items()
        }
        host.load_reference(weights)
        for prefix, module in _official_parts(host).items():
            for key, value in module.state_dict().items():
                torch.testing.assert_close(value, weights[prefix + key], atol=0, rtol=0)
        before = copy.deepcopy(host.state_dict())
        with pytest.raises(ReferenceWeightsError, match=r"other\.weight"):
            host.load_reference({**weights, "other.weight": torch.zeros(2)})
        short = dict(list(weights.items())[:-1])
        with pytest.raises(ReferenceWeightsError, match="missing"):
            host.load_reference({k: v + 1 for k, v in short.items()})
        assert all(torch.equal(v, before[k]) for k, v in host.state_dict().items())
        with pytest.raises(ReferenceWeightsError, match="official"):
            self.make(official, dims={"text": 6}).load_reference(weights)
        with pytest.raises(ReferenceWeightsError, match="early"):
            self.make(official, placement="late", variant="official").load_reference(weights)


def _official_parts(host) -> dict[str, nn.Module]:
    return {prefix: host.get_submodule(path) for prefix, path in host.reference_names().items()}
