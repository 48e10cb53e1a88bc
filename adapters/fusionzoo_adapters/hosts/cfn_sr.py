"""CFN-SR's network of clips: a 3-D ResNeXt-50 over faces, a network over MFCCs, and a fusion of the two.

With other fusions in its place it is the comparison table of CFN-SR and MSAF on RAVDESS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_probability
from fusionzoo._weights import read_weights
from fusionzoo.clip_host import ClipHost, EncoderLike
from fusionzoo.encoders.mfccnet import MFCCNet
from fusionzoo.encoders.outputs import Encoded
from fusionzoo.encoders.resnext3d import ResNeXt3D
from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.fusion import Dims, Fused, Fusion
from fusionzoo.host import FusionLike, build_fusion
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.reference import prefixed
from fusionzoo.specs import plain_name

if TYPE_CHECKING:
    from fusionzoo.batch import Batch

HEADS = ("linear", "sum", "none")
#: Fusions that this network was published with on feature maps, and at how many places.
_STAGES = {"cfn-sr": 1, "mmtm": 2, "msaf": 2}


class CFNSR(ClipHost):
    r"""Faces and voice of a clip to an emotion.

    .. math::
        \tilde X_v = \operatorname{block}(X_v, X_a), \qquad
        \text{logits} = W\,[\operatorname{mean}\tilde X_v ;\ \operatorname{drop}(\operatorname{flatten} X_a)] + b

    Parameters
    ----------
    dims : pictures (3) and MFCCs (13) as published; other widths are ready features of frames or utterances, for which there
        is no trunk, and which the fusion takes as every `ClipHost`'s.
    fusion : `"cfn-sr"`, `"msaf"` and `"mmtm"` work on the trunks' feature maps; any other takes the two pooled vectors, of
        widths 2048 and 1664.
    encoders : `"auto"`: where all are of the published widths, a `ResNeXt3D` for pictures (3) and a `MFCCNet` for MFCCs (audio, 13),
        else none; or a mapping of a modality to the options of its trunk, such as `{visual: {layers: [1, 1, 1, 1], groups: 2}, audio: {widths: [8, 8]}}`.
    stages : places at which a fusion works on maps: 1 behind both trunks (cfn-sr), 2 before their last blocks too (mmtm, msaf,
        as MSAF publishes it), 0 on pooled vectors; None as published.
    head : `"linear"` over the fused vector; `"sum"`: a linear map of each modality's vector, added up, as MSAF has it, for
        fusions on maps; `"none"`: the fusion's output are the logits, for the late fusions.
    dropout : on the flattened audio, 0.4.
    pool, fusion_width : see `ClipHost`.
    weights : modality -> a checkpoint of its trunk, to begin with, as published: the authors' file, or the folder of a run of
        this host on that modality alone (`--modalities visual`).
    variant : see `variants`.

    By default clips of fewer frames are run by themselves, so that none reads padding; the published code has 30 always.

    Shapes: clips of pictures `(B, 30, 3, 224, 224)` and MFCCs `(B, 212, 13)` to logits `(B, 1, C)`.
    Parameters: 26,301,416;
    25,916,080 with a late fusion and no head; 26,870,824 with concat-fc and no head; 25,940,724 with msaf (as published) and
    `head="sum"`.
    Source: Fu et al., "A cross-modal fusion network based on self-attention and residual structure for multimodal emotion
    recognition", arXiv 2111.02172; code skeletonNN/CFN-SR@2443494729, `networks/msaf_ravdess.py`, which as
    committed lacks the block's encoder; that of `msaf_ravdess_ab_1.py` is in its place. MSAF's places: anita-hu/MSAF@125e0f1eef,
    `ravdess/networks/msaf_ravdess.py`.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.cfn_sr:OfficialCFNSR"}
    own = "cfn-sr"
    #: Whether the video trunk has a ReLU after its first convolution.
    rectified_stem: ClassVar[bool] = True
    stages: int | None
    on_maps: bool
    early_fusion: Any

    without_effect: ClassVar[dict[str, str]] = {
        "dropout": "on the maps of raw audio, not on ready features",
    }

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "cfn-sr",
        placement: str | None = None,
        *,
        encoders: str | Mapping[str, EncoderLike] | None = "auto",
        stages: int | None = None,
        head: str = "linear",
        dropout: float = 0.4,
        pool: str = "mean",
        fusion_width: int | None = None,
        weights: Mapping[str, str] | None = None,
        variant: str = "default",
    ):
        check_choice(head, HEADS, "head", self)
        if stages not in (None, 0, 1, 2):
            raise OptionError(f"CFNSR: stages must be 0, 1 or 2, not {stages!r}")
        # Before nn.Module is set up only plain values can be kept.
        self.stages = stages
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            encoders=encoders,
            pool=pool,
            fusion_width=num_classes if head == "none" and fusion_width is None else fusion_width,
        )
        self.dropout = Dropout(check_probability(dropout, "dropout", self))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1, 1), persistent=False)
        self.head = self._make_head(head)
        for name, source in (weights or {}).items():
            self._start_from(name, source)

    def make_encoders(self, given: Any) -> dict[str, nn.Module]:
        if given == "auto":
            published = all(d == 3 or (d == 13 and m == "audio") for m, d in self.dims.items())
            given = {m: {} for m in self.dims} if published else {}
        if not isinstance(given, Mapping) or any(m not in self.dims for m in given):
            raise OptionError(
                f"CFNSR: encoders is 'auto' or maps some of {', '.join(self.names)} to options, not {given!r}"
            )
        return {m: self._trunk(m, how) for m, how in given.items() if how is not None}

    def _trunk(self, name: str, how: Any) -> nn.Module:
        if isinstance(how, nn.Module):
            trunk = how
        elif name == "audio":
            shapes: dict[str, Any] = {k: tuple(v) if k == "widths" else v for k, v in dict(how).items()}
            trunk = MFCCNet(self.dims[name], **shapes)
        else:
            options = {k: tuple(v) if k == "layers" else v for k, v in dict(how).items()}
            trunk = ResNeXt3D(**{"rectified_stem": self.rectified_stem, **options})
        if getattr(trunk, "fc1", None) is not None or getattr(trunk, "fc", None) is not None:
            raise OptionError("CFNSR: a trunk must be without a head; build it with classes=0")
        return trunk

    # -- the fusion ---------------------------------------------------------------------------------------------------

    def _fused_dims(self) -> dict[str, int]:
        """Widths of the pooled vectors, or of the maps; decides which."""
        self.on_maps = self._takes_maps()
        if self.on_maps:
            return self.widths
        return {m: int(getattr(self.encoder(m), "flat", w)) for m, w in self.widths.items()}

    def _takes_maps(self) -> bool:
        if len(self.dims) < 2 or len(self.encoders) < len(self.dims) or self.stages == 0:
            return False
        fusion = getattr(self, "fusion_like", None)
        if isinstance(fusion, Fusion):
            found: Any = fusion
        else:
            from fusionzoo._registry import registry

            found = registry.get(fusion[0] if isinstance(fusion, tuple) else str(fusion))
        return hasattr(found, "on_maps")

    def _prepared(self, fusion: FusionLike, own: dict[str, Any]) -> FusionLike:
        """On maps: the widths that build no map of its own, and the published sizes."""
        prepared = super()._prepared(fusion, own)
        self.early_fusion = None
        if not self._takes_maps() or not isinstance(prepared, tuple):
            return prepared
        name, given = plain_name(prepared[0]), dict(prepared[1])
        widths = [int(self.encoder(m).width) for m in self.names]
        stages = _STAGES.get(name, 1) if self.stages is None else self.stages
        if stages == 2:
            before = {
                m: getattr(self.encoders[m], "early_width", w // 2) for m, w in zip(self.names, widths, strict=True)
            }
            options = _on_maps(name, list(before.values()), self.variant) | given
            self.early_fusion = build_fusion((prepared[0], options), before, sum(before.values()))
        return prepared[0], {"out_dim": sum(widths), **_on_maps(name, widths, self.variant), **given}

    def _make_head(self, head: str) -> nn.Module:
        widths = [int(getattr(self.encoder(m), "flat", w)) for m, w in self.widths.items()]
        if head == "none":
            if self.on_maps or self.fused_width != self.num_classes or self.fusion is None:
                raise OptionError(
                    f"CFNSR: head='none' takes the fusion's output for logits; it needs two modalities, a fusion that does not "
                    f"work on maps (stages=0), and a width of {self.num_classes}, not {self.fused_width}"
                )
            return nn.Identity()
        if head == "sum":
            if not self.on_maps:
                raise OptionError(
                    "CFNSR: head='sum' adds up the modalities' logits behind a fusion on maps (cfn-sr, msaf, mmtm)"
                )
            return _Sum(widths, self.num_classes)
        return nn.Linear(sum(widths) if self.on_maps else self.fused_width, self.num_classes)

    # -- forward ------------------------------------------------------------------------------------------------------

    def fuse(self, batch: Batch) -> tuple[Fused, dict[str, Tensor]]:
        if not self.encoders:
            return super().fuse(batch)
        inputs, masks = {}, {}
        rows = batch.mask.reshape(-1, 1)
        for m in self.names:
            if m not in batch.clips:
                if self.on_maps:
                    raise ShapeError(f"the batch has no clips of {m!r}, and a fusion on feature maps needs them all")
                continue
            clip = batch.clips[m]
            assert isinstance(clip.values, Tensor)
            present = (batch.present or {}).get(m)
            real = rows if present is None else rows & present.reshape(-1, 1)
            inputs[m] = clip.values
            masks[m] = real.expand(clip.values.shape[:2]) if clip.mask is None else clip.mask & real
        return self.in_groups(inputs, masks), {}

    def in_groups(self, inputs: dict[str, Tensor], masks: dict[str, Tensor]) -> Fused:
        """Clips of one length together, so that a convolution over time meets no padding."""
        if all(bool(mask.all()) for mask in masks.values()):
            return self.fuse_clips(inputs, masks)
        lengths = torch.stack([mask.sum(1) for mask in masks.values()], 1)
        kinds, kind = lengths.unique(dim=0, return_inverse=True)
        parts, order = [], []
        for i, each in enumerate(kinds.tolist()):
            rows = (kind == i).nonzero().squeeze(1)
            # One that is absent keeps its steps, which are zeros.
            cut = {m: n or inputs[m].shape[1] for m, n in zip(masks, each, strict=True)}
            there = {m: masks[m][rows, : cut[m]] for m in masks}
            parts.append(self.fuse_clips({m: x[rows, : cut[m]] for m, x in inputs.items()}, there))
            order.append(rows)
        back = torch.cat(order).argsort()
        streams = {k: torch.cat([p.streams[k] for p in parts])[back] for k in parts[0].streams}
        losses = {k: torch.stack([p.losses[k] for p in parts]).mean() for k in parts[0].losses}
        return Fused(torch.cat([p.fused for p in parts])[back], streams, {}, losses)

    def fuse_clips(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Fused:
        """Clips of one length, `(B, F, 3, H, W)` uint8 and `(B, T, coefficients)`, to what the head reads."""
        there = {m: mask.any(1) for m, mask in masks.items()}
        ready = {m: self._ready(m, x) for m, x in inputs.items()}
        if self.on_maps:
            return self.fuse_maps([ready[m] for m in self.names], [there[m] for m in self.names])
        vectors = {m: None if m not in ready else self._vector(m, self._maps(m, ready[m])) for m in self.names}
        encoded = {
            m: None if v is None else Encoded(v.unsqueeze(1) * there[m].view(-1, 1, 1), there[m].unsqueeze(1))
            for m, v in vectors.items()
        }
        return self.fuse_sequences(encoded)[0]

    def fuse_maps(self, inputs: Sequence[Tensor], there: Sequence[Tensor] | None = None) -> Fused:
        """What the trunks take, `(B, 3, F, H, W)` and `(B, coefficients, T)`, to the vector that the head reads.

        there : bool `(B,)` of each modality; the maps of a clip that lacks it are zero.
        """
        trunks: list[Any] = [self.encoders[m] for m in self.names]
        xs = list(inputs)
        if self.early_fusion is not None:
            xs = self.early_fusion.on_maps(
                self.only_there([t.early(x) for t, x in zip(trunks, xs, strict=True)], there)
            )
            xs = [t.late(x) for t, x in zip(trunks, xs, strict=True)]
        else:
            xs = [t.maps(x) for t, x in zip(trunks, xs, strict=True)]
        assert self.fusion is not None
        maps = self.fusion.on_maps(self.only_there(xs, there))
        vectors = {m: self._vector(m, x) for m, x in zip(self.names, maps, strict=True)}
        return Fused(torch.cat(list(vectors.values()), -1), vectors)

    def only_there(self, maps: list[Tensor], there: Sequence[Tensor] | None) -> list[Tensor]:
        """The maps, zero where a clip lacks the modality."""
        if there is None:
            return maps
        return [x * t.view(-1, *(1,) * (x.dim() - 1)) for x, t in zip(maps, there, strict=True)]

    def _ready(self, name: str, x: Tensor) -> Tensor:
        """A clip as its trunk takes it: colours, then frames, normalised; or coefficients, then steps."""
        if name not in self.encoders:
            return x
        if x.dim() == 3:
            return x.transpose(1, 2)
        x = x.transpose(1, 2)
        return (x.float() / 255.0 - self.mean) / self.std if x.dtype == torch.uint8 else x

    def _maps(self, name: str, x: Tensor) -> Tensor:
        trunk = self.encoder(name)
        return x.transpose(1, 2) if trunk is None else trunk.maps(x)

    def _vector(self, name: str, maps: Tensor) -> Tensor:
        """The maps' mean, or of the audio trunk all of them, flat."""
        if hasattr(self.encoder(name), "flat"):
            return self.dropout(maps.flatten(1))
        return maps.flatten(2).mean(-1)

    def _check(self, batch: Batch) -> None:
        for name, clip in batch.clips.items():
            if name in self.encoders and not (isinstance(clip.values, Tensor) and clip.values.dim() in (3, 5)):
                raise ShapeError(
                    f"CFNSR takes pictures (B, F, 3, H, W) or coefficients (B, T, 13) of {name!r}; set data.media.{name}.kind"
                )
        super()._check(batch)

    def _example_values(self, name: str, kind: str | None, width: int, device: torch.device) -> Tensor:
        trunk = self.encoder(name)
        if isinstance(trunk, MFCCNet):
            return torch.zeros(1, trunk.steps * 8 + 4, width, device=device)
        if trunk is not None:
            return torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8, device=device)
        return torch.zeros(1, 2, width, device=device)

    # -- weights ------------------------------------------------------------------------------------------------------

    def _start_from(self, name: str, source: str) -> None:
        """Load a trunk's checkpoint."""
        trunk = self.encoder(name)
        if trunk is None:
            raise OptionError(
                f"CFNSR: weights names {name!r}, which has no trunk; there are {', '.join(self.encoders)}"
            )
        path = Path(source).expanduser()
        if path.is_dir():
            path = path / "model.safetensors"
        if not path.is_file():
            raise OptionError(f"CFNSR: weights.{name}={source}: there is no such file, or run folder")
        if path.suffix == ".safetensors":
            state = read_weights(path)
            state = prefixed(state, f"encoders.{name}.") or state
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        trunk.load_reference({k.removeprefix("module."): v for k, v in state.items()})


class _Sum(nn.Module):
    """A linear map of each modality's part of a vector, added up."""

    def __init__(self, widths: Sequence[int], classes: int):
        super().__init__()
        self.widths = list(widths)
        self.parts = nn.ModuleList(nn.Linear(w, classes) for w in widths)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.split(self.widths, -1)
        return torch.stack([part(p) for part, p in zip(self.parts, pieces, strict=True)]).sum(0)


def _on_maps(name: str, widths: Sequence[int], variant: str) -> dict[str, Any]:
    """The published sizes of a fusion on maps of these widths."""
    if name == "cfn-sr":
        return {"width": widths[1], "variant": variant}
    if name == "msaf":
        return {"block": max(1, min(widths) // 2), "dropout": 0.2, "variant": variant}
    return {"variant": variant} if name == "mmtm" else {}


fusionzoo_register = fusionzoo.plugin(
    CFNSR,
    summary="3-D ResNeXt over faces, convolutions over MFCCs, a fusion on their maps or vectors",
    paper="Fu et al., A cross-modal fusion network based on self-attention and residual structure for multimodal "
    "emotion recognition, arXiv 2111.02172",
    code="skeletonNN/CFN-SR@2443494729",
    level="sequence",
)
