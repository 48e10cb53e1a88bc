"""EmoTx (movie scenes): tokens of faces, scene and subtitles in one sequence through one encoder; its masks are True at padding."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "katha-ai/EmoTx-CVPR2023"
COMMIT = "561c894dfa"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0, (0, 2): 0}


def build(root: Any) -> Any:
    """As `trainer.py` does, with small widths."""
    from models.emotx import EmoTx

    people, steps, labels = 2, 6, 4
    model = EmoTx(
        labels, 30, 20, 12, 10, num_enc_layers=2, num_chars=people, max_individual_tokens=steps, hidden_dim=16
    )
    padded = torch.arange(steps) >= torch.tensor([6, 4, 3])[:, None]
    frames = torch.arange(steps).expand(3, steps)
    streams = [torch.randn(3, people, steps, 12), torch.randn(3, steps, 20), torch.randn(3, steps, 10)]
    places = [frames[:, None].expand(3, people, steps), frames, frames]
    wanted = torch.zeros(3, people + 1, labels, dtype=torch.bool)
    faces, scene = wanted.clone(), wanted.clone()
    faces[:, 1:], scene[:, 0] = True, True
    masks = [
        padded[:, None].expand(3, people, steps).float(),
        padded.float(),
        padded.float(),
        faces.flatten(),
        scene.flatten(),
    ]
    return model, Call([*streams, *places], masks), {}
