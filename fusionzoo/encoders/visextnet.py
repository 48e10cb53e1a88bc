"""MultiEMO's encoder of faces: ResNet-101 on each face that is found, averaged over all of a clip."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionzoo.encoders._residual import ResidualNetwork
from fusionzoo.encoders.outputs import Encoded
from fusionzoo.errors import FusionZooWarning, MissingDependency, OptionError, ShapeError
from fusionzoo.numerics import zero_padded
from fusionzoo.plugin import plugin

#: A face detector: one picture `(3, H, W)` uint8 -> its faces `(n, 3, h, w)`, uint8 or float 0 to 1, n from 0.
Detector = Callable[[Tensor], Tensor]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class VisExtNet(ResidualNetwork):
    """ResNet-101 over faces; a clip's vector is the mean over all faces of up to 20 of its frames, zeros without any.

    Parameters
    ----------
    width : of a face's vector, 1000 there.
    frames : how many with faces are kept of a clip, evenly spaced.
    detector : `"mtcnn"` needs the package facenet-pytorch; a callable (see `Detector`) is any other;
        `None` takes the whole picture for a face; `"auto"` is MTCNN where it is installed, else the whole picture, which is
        said once in a warning and stays readable in `detected_by`.
    layers : smaller ones make a smaller network for tests.

    The official weights are VGGFace2's, which nobody may hand on; `load_reference` takes any ResNet-101 with torchvision's
    names.

    Shapes: faces `(B, N, 3, H, W)`, uint8 or float 0 to 1, and mask `(B, N)` -> states `(B, N, width)` and the mask;
    `pool(states, mask)` is the published feature. `faces(clip)` finds them.
    Parameters: 44,549,160.
    Source: Shi and Huang, "MultiEMO", ACL 2023; official code TaoShi1998/MultiEMO, `VisExtNet.py`.
    """

    def __init__(
        self,
        width: int = 1000,
        *,
        detector: str | Detector | None = "auto",
        frames: int = 20,
        size: int = 224,
        layers: tuple[int, int, int, int] = (3, 4, 23, 3),
    ):
        super().__init__(2, layers, (64, 256), 1, width, (2, 2))
        self.out_width, self.frames, self.size = width, frames, size
        self.detector, self.detected_by = _detector(detector, size)
        self.register_buffer("mean", torch.tensor(_IMAGENET[0]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET[1]).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @torch.no_grad()
    def faces(self, clip: Tensor) -> Tensor:
        """`(F, 3, H, W)` uint8 -> `(n, 3, size, size)` float 0 to 1: the faces of at most `frames` frames that have some."""
        found = []
        for picture in clip:
            faces = picture.unsqueeze(0) if self.detector is None else self.detector(picture)
            if len(faces):
                found.append(F.interpolate(_unit(faces), (self.size, self.size), mode="bilinear", antialias=True))
        step = max(1, len(found) // self.frames)
        kept = found[::step][: self.frames]
        return torch.cat(kept) if kept else torch.zeros(0, 3, self.size, self.size)

    def forward(self, faces: Tensor, mask: Tensor | None = None) -> Encoded:
        """One state per face, and the mask."""
        if faces.dim() != 5 or faces.shape[2] != 3:
            raise ShapeError(f"VisExtNet takes faces (B, N, 3, H, W), got {tuple(faces.shape)}")
        mask = torch.ones(faces.shape[:2], dtype=torch.bool, device=faces.device) if mask is None else mask.bool()
        states = torch.zeros(*mask.shape, self.out_width, device=faces.device)
        if mask.any():
            vectors = super().forward((_unit(faces[mask]) - self.mean) / self.std)
            states = states.to(vectors.dtype).masked_scatter(mask.unsqueeze(-1), vectors)
        return Encoded(zero_padded(states, mask), mask)

    def collate(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        """`faces` and bool `mask` for `forward` from clips `(F_i, 3, H, W)`."""
        found = [self.faces(clip) for clip in clips]
        length = torch.tensor([len(f) for f in found])
        faces = torch.zeros(len(found), max(1, int(length.max())), 3, self.size, self.size)
        for row, mine in zip(faces, found, strict=True):
            row[: len(mine)] = mine
        device = self.mean.device
        return {"faces": faces.to(device), "mask": (torch.arange(faces.shape[1]) < length.unsqueeze(1)).to(device)}


def _unit(pictures: Tensor) -> Tensor:
    return pictures.float() / 255.0 if pictures.dtype == torch.uint8 else pictures.float()


def _detector(detector: str | Detector | None, size: int) -> tuple[Detector | None, str]:
    """The detector and its name."""
    if detector is None:
        return None, "none: whole pictures"
    if callable(detector):
        return detector, getattr(detector, "__name__", type(detector).__name__)
    if detector not in ("auto", "mtcnn"):
        raise OptionError(f"VisExtNet: detector={detector!r}; choices: 'auto', 'mtcnn', None, or a callable")
    try:
        library: Any = importlib.import_module("facenet_pytorch")
    except ImportError as error:
        if detector == "mtcnn":
            raise MissingDependency("facenet-pytorch", None, "VisExtNet's face detector MTCNN") from error
        warnings.warn(
            "VisExtNet finds no face detector (facenet-pytorch is not installed) and takes whole pictures for faces, which "
            "is not what MultiEMO did; install it, give detector= a callable, or say detector=None to mean this",
            FusionZooWarning,
            stacklevel=3,
        )
        return None, "none: whole pictures (no face detector is installed)"
    network = library.MTCNN(image_size=size, keep_all=True, post_process=False)

    def mtcnn(picture: Tensor) -> Tensor:
        faces = network(picture.permute(1, 2, 0).cpu().numpy())
        return torch.zeros(0, 3, size, size) if faces is None else faces / 255.0

    return mtcnn, "mtcnn"


fusionzoo_register = plugin(
    VisExtNet,
    kind="encoder",
    name="visextnet",
    summary="MultiEMO's ResNet-101 over the faces of a clip",
    paper="Shi and Huang, MultiEMO, ACL 2023",
    code="https://github.com/TaoShi1998/MultiEMO",
)
