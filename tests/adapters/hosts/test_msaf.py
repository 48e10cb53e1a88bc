"""MSAF: where its fusion stands, which step it reads, and the official weights that it takes."""

from __future__ import annotations

import copy

import pytest
import torch
from clip_hosts import ClipHostTests, build, sequences

from fusionzoo.errors import OptionError, ReferenceWeightsError


class TestMSAF(ClipHostTests):
    HOST = "msaf"


def test_between_its_lstms_is_the_published_formula():
    host = build("msaf", channels={"audio": 8, "visual": 4})
    batch = sequences(rows=(0,))
    first = {m: host.first[m](clip.values)[0] for m, clip in batch.clips.items()}
    fused = host.fusion.fuse(first, {m: clip.mask for m, clip in batch.clips.items()}).streams
    last = [host.second[m](x)[0][:, -1] for m, x in fused.items()]
    torch.testing.assert_close(host(batch).logits[:, 0], host.head(torch.cat(last, -1)))


@pytest.mark.parametrize("fusion", ["msaf", "mmtm", "cfn-sr"])
def test_a_fusion_that_keeps_feature_maps_is_in_the_middle(fusion):
    host = build("msaf", fusion=fusion, channels={"audio": 8, "visual": 4})
    assert host.in_the_middle
    assert host.head.in_features == 8 + 4


def test_any_other_fusion_reads_the_last_real_step_of_the_second_lstms():
    host = build("msaf", fusion="concat")
    assert not host.in_the_middle
    batch = sequences()
    with torch.no_grad():
        states = {m: host.second[m](host.first[m](clip.values)[0])[0] for m, clip in batch.clips.items()}
    for row in range(3):
        last = [states[m][row, int(clip.mask[row].sum()) - 1] for m, clip in batch.clips.items()]
        torch.testing.assert_close(
            host(batch).logits[row, 0], host.head(host.fusion([x.view(1, 1, -1) for x in last]))[0, 0]
        )


def test_the_official_variant_reads_the_last_padded_step():
    host, whole = (build("msaf", fusion="concat", variant=v) for v in ("official", "default"))
    alone, together = host(sequences(rows=(2,))).logits[0], host(sequences()).logits[2]
    assert not torch.allclose(alone, together, atol=1e-5)
    whole.load_state_dict(host.state_dict())
    torch.testing.assert_close(whole(sequences(rows=(2,))).logits[0], alone)  # without padding: equal


def test_channels_name_every_modality_and_no_other():
    with pytest.raises(OptionError, match="channels names audio, the data have audio, visual"):
        build("msaf", channels={"audio": 8})
    with pytest.raises(OptionError, match="channels names audio, visual, text"):
        build("msaf", channels={"audio": 8, "visual": 8, "text": 8})
    with pytest.raises(OptionError, match="channels"):
        build("msaf", channels=0)


def test_official_weights_whole_or_not_at_all():
    host = build("msaf", variant="official")
    before = copy.deepcopy(host.state_dict())
    head = {"multimodal_classifier.0.weight": torch.ones(3, 16), "multimodal_classifier.0.bias": torch.ones(3)}
    with pytest.raises(ReferenceWeightsError, match="missing"):
        host.load_reference(head)
    assert all(torch.equal(v, before[k]) for k, v in host.state_dict().items())
    with pytest.raises(ReferenceWeightsError, match="official"):
        build("msaf").load_reference(head)
    with pytest.raises(ReferenceWeightsError, match="fusion='msaf'"):
        build("msaf", variant="official", fusion="mmtm").load_reference(head)
