"""Hosts of clips on sequences, utterances for them, and what every such host promises."""

from __future__ import annotations

from typing import ClassVar

import torch

import fusionzoo
from fusionzoo.batch import Batch, Clip
from fusionzoo.testing.comparisons import reached

DIMS = {"audio": 8, "visual": 4}
LENGTHS = {"audio": [7, 4, 2], "visual": [3, 5, 1]}
OWN = {
    "memo-cmt": {"hidden": [16]},
    "foal-net": {"sequence_dropout": 0.0},
    "cfn-sr": {"fusion": ("cfn-sr", {"width": 4, "layers": 1})},
    "msaf": {"channels": 8},
}


def build(name: str, dims=DIMS, **options):
    torch.manual_seed(0)
    return fusionzoo.get(name, kind="host")(dims, 3, 1, **{**OWN[name], **options}).eval()


def make(clips: dict[str, Clip], labels=None) -> Batch:
    size = (len(next(iter(clips.values()))), 1)
    zeros = torch.zeros(size, dtype=torch.long)
    labels = zeros if labels is None else torch.tensor(labels).view(size)
    return Batch({}, zeros == 0, zeros, labels, [str(i) for i in range(size[0])], None, [1] * size[0], clips)


def sequences(steps=None, fill=0.0, rows=(0, 1, 2), dims=DIMS, lengths=LENGTHS, labels=None) -> Batch:
    """Three utterances whose values do not depend on the padding."""
    clips = {}
    for i, (m, d) in enumerate(dims.items()):
        chosen = [lengths[m][r] for r in rows]
        values = torch.full((len(rows), steps or max(chosen), d), fill)
        for b, (r, n) in enumerate(zip(rows, chosen, strict=True)):
            values[b, :n] = torch.randn(n, d, generator=torch.Generator().manual_seed(10 * i + r))
        clips[m] = Clip(values, torch.arange(values.shape[1]) < torch.tensor(chosen).unsqueeze(1))
    return make(clips, labels)


class ClipHostTests:
    """Tests of a host of clips, whatever its fusion."""

    HOST: ClassVar[str]

    def test_padding_is_never_read_and_a_clip_does_not_depend_on_its_batch(self):
        host = build(self.HOST)
        out = host(sequences()).logits
        assert out.shape == (3, 1, 3)
        assert torch.allclose(host(sequences(steps=9, fill=float("nan"))).logits, out, atol=1e-5)
        for row in range(3):
            assert torch.allclose(host(sequences(rows=(row,))).logits[0], out[row], atol=1e-5)

    def test_gradient_reaches_every_parameter_and_every_real_step(self):
        host, batch = build(self.HOST).train(), sequences()
        for clip in batch.clips.values():
            clip.values.requires_grad_()
        logits = host(batch).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(3)).backward()
        assert [n for n, p in host.named_parameters() if p.grad is None] == []
        felt = reached({m: clip.values.grad for m, clip in batch.clips.items()})
        for m, clip in batch.clips.items():
            steps = felt[m].any(-1)
            assert not steps[~clip.mask].any(), m
            # MemoCMT's minimum, and the last step that guides CFN-SR, leave steps out.
            assert steps.any(1).all(), m

    def test_every_fusion_fits_sequences_of_different_lengths(self):
        for fusion in fusionzoo.names():
            low, high = fusionzoo.card(fusion).modalities
            if low <= 2 and (high is None or high >= 2):
                host = build(self.HOST, fusion=fusion)
                out = host(sequences())
                assert out.logits.isfinite().all(), fusion
                assert torch.allclose(host(sequences(rows=(1,))).logits[0], out.logits[1], atol=1e-4), fusion
                for stream in out.streams.values():
                    assert stream.shape[:2] == (3, 1), fusion

    def test_a_modality_that_is_missing(self):
        host, batch = build(self.HOST), sequences()
        whole = host(batch).logits
        batch.present = {"audio": torch.tensor([[True], [False], [True]])}
        part = host(batch).logits
        assert part.isfinite().all()
        assert torch.allclose(part[[0, 2]], whole[[0, 2]], atol=1e-5)
        assert not torch.allclose(part[1], whole[1], atol=1e-4)
        del batch.clips["audio"]
        batch.present = None
        assert host(batch).logits.isfinite().all()
