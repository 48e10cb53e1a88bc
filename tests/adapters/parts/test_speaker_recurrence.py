"""The recurrence over the utterances of one speaker."""

from __future__ import annotations

import pytest
import torch

from fusionzoo_adapters.parts.speaker_recurrence import PartyContext


@pytest.mark.parametrize("reads_padding", [False, True])
@pytest.mark.parametrize("parties", [2, 4])
def test_each_speaker_is_read_alone(reads_padding, parties):
    torch.manual_seed(0)
    layer = PartyContext(3, 2, 2, reads_padding=reads_padding).eval()
    lengths, steps = [6, 1, 4], 8
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    speakers = torch.randint(parties, (3, steps))
    xs = [torch.randn(3, steps, 3) for _ in range(2)]
    out = layer(xs, mask, speakers, parties)
    for x, y in zip(xs, out, strict=True):
        assert (y[~mask] == 0).all()
        for b, n in enumerate(lengths):
            for p in range(parties):
                own = [t for t in range(n) if speakers[b, t] == p]
                if own:
                    # Officially zeros follow, up to the padded length.
                    sequence = x[b, own]
                    if reads_padding:
                        sequence = torch.cat([sequence, torch.zeros(steps - len(own), 3)])
                    torch.testing.assert_close(
                        y[b, own], layer.rnn(sequence[None])[0][0, : len(own)], atol=1e-5, rtol=1e-5
                    )
