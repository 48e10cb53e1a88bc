"""CFN-SR's encoder of sound: thirteen MFCCs and a small network over time."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.errors import ShapeError
from fusionzoo.plugin import plugin
from fusionzoo.reference import copy_reference_parts


class MFCCNet(nn.Module):
    r"""Three convolutions over MFCCs; rectified before they are normalised, as published.

    Parameters
    ----------
    coefficients : 13.
    classes : of the head; 0 builds none.
    frames : time steps, which fix the head's width: 212 there.
    widths : of the first two convolutions and of the last.
    dropout : after the second block.
    head_dropout : before the head.

    Shapes: `(B, coefficients, frames)` -> logits `(B, classes)`, or the maps flattened channel by channel, `(B, 1664)`;
    `maps` gives `(B, 64, 26)`.
    Parameters: 34,024 with a head of 8 classes, 20,704 without.
    Source: official code skeletonNN/CFN-SR@2443494729, `networks/mfcc_cnn.py`; before it anita-hu/MSAF.

    >>> MFCCNet(classes=8)(torch.zeros(2, 13, 212)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        coefficients: int = 13,
        classes: int = 0,
        *,
        frames: int = 212,
        widths: tuple[int, int] = (32, 64),
        dropout: float = 0.2,
        head_dropout: float = 0.4,
    ):
        super().__init__()
        first, last = widths
        self.coefficients, self.width, self.early_width = coefficients, last, first
        self.conv1, self.bn1 = nn.Conv1d(coefficients, first, 7, padding=2), nn.BatchNorm1d(first)
        self.conv2, self.bn2 = nn.Conv1d(first, first, 7, padding=2), nn.BatchNorm1d(first)
        self.conv3, self.bn3 = nn.Conv1d(first, last, 5, padding=2), nn.BatchNorm1d(last)
        self.pool, self.dropout, self.head_dropout = nn.MaxPool1d(8), nn.Dropout(dropout), nn.Dropout(head_dropout)
        self.steps = (frames - 4) // 8
        self.flat = last * self.steps
        self.fc1 = nn.Linear(self.flat, classes) if classes else None

    def early(self, x: Tensor) -> Tensor:
        """The maps of the second convolution, `(B, 32, 208)`."""
        if x.dim() != 3 or x.shape[1] != self.coefficients:
            raise ShapeError(f"MFCCNet takes (B, {self.coefficients}, frames), got {tuple(x.shape)}; time comes last")
        x = self.bn1(self.conv1(x).relu())
        return self.conv2(x).relu()

    def late(self, x: Tensor) -> Tensor:
        """The last maps, from `early`'s."""
        x = self.dropout(self.bn2(self.pool(x)))
        return self.bn3(self.conv3(x).relu())

    def maps(self, x: Tensor) -> Tensor:
        """The last maps."""
        return self.late(self.early(x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or the maps flattened channel by channel where there is no head."""
        flat = self.head_dropout(self.maps(x).flatten(1))
        if self.fc1 is None:
            return flat
        if flat.shape[1] != self.flat:
            raise ShapeError(
                f"MFCCNet: {x.shape[-1]} frames give {flat.shape[1]} values, its head takes {self.flat}; build it with "
                f"frames={x.shape[-1]}, or cut the sound"
            )
        return self.fc1(flat)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official `MFCCNet`; a head that this one does not have is left out."""
        parts = {f"{n}.": getattr(self, n) for n in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc1")}
        counters = {f"{n}.num_batches_tracked": torch.zeros((), dtype=torch.long) for n in ("bn1", "bn2", "bn3")}
        own = {k: m for k, m in parts.items() if m is not None}
        copy_reference_parts(own, {**counters, **state}, () if self.fc1 is not None else ("fc1.",))


def mfcc(
    wave: Tensor, rate: int = 44100, coefficients: int = 13, *, window: int = 2048, hop: int = 512, bands: int = 128
) -> Tensor:
    """Mel-frequency cepstral coefficients, `(..., N)` -> `(..., coefficients, 1 + N // hop)`, as librosa's defaults.

    Power spectrum of centred Hann windows, Slaney's mel bands of equal area, decibels down to 80 below the clip's loudest,
    and an orthonormal cosine transform.

    >>> mfcc(torch.zeros(2, 108045)).shape
    torch.Size([2, 13, 212])
    """
    padded = F.pad(wave, (window // 2, window // 2))
    hann = torch.hann_window(window, dtype=wave.dtype, device=wave.device)
    flat = padded.reshape(-1, padded.shape[-1])
    spectrum = torch.stft(flat, window, hop, window=hann, center=False, return_complex=True).abs().square()
    mel = _mel_bands(rate, window, bands).to(spectrum) @ spectrum
    decibels = 10.0 * mel.clamp(min=1e-10).log10()
    decibels = decibels.maximum(decibels.amax((-2, -1), keepdim=True) - 80.0)
    out = _cosines(coefficients, bands).to(decibels) @ decibels
    return out.reshape(*wave.shape[:-1], *out.shape[-2:])


def _hertz(mel: Tensor) -> Tensor:
    """Slaney's scale: linear below 1000 Hz, logarithmic above."""
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))


@functools.lru_cache(maxsize=8)
def _mel_bands(rate: int, window: int, bands: int) -> Tensor:
    top = rate / 2.0
    limit = 15.0 + math.log(top / 1000.0) * 27.0 / math.log(6.4) if top >= 1000.0 else top * 3.0 / 200.0
    edges = _hertz(torch.linspace(0.0, limit, bands + 2, dtype=torch.float64))
    bins = torch.linspace(0.0, top, window // 2 + 1, dtype=torch.float64)
    ramps = edges.unsqueeze(1) - bins
    widths = edges.diff().unsqueeze(1)
    weights = torch.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]).clamp(min=0)
    return weights * (2.0 / (edges[2:] - edges[:-2])).unsqueeze(1)


@functools.lru_cache(maxsize=8)
def _cosines(coefficients: int, bands: int) -> Tensor:
    order = torch.arange(coefficients, dtype=torch.float64).unsqueeze(1)
    place = torch.arange(bands, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi / bands * order * place) * math.sqrt(2.0 / bands)
    rows[0] /= math.sqrt(2.0)
    return rows


fusionzoo_register = plugin(
    MFCCNet,
    kind="encoder",
    name="mfccnet",
    summary="CFN-SR's network over thirteen MFCCs",
    code="https://github.com/skeletonNN/CFN-SR at 2443494729",
)
