"""The host contract: an emotion-recognition-in-conversation model with a fusion inside.

A host is written by subclassing `Host`, naming in its constructor the places where the fusion may sit (`seam`), and
implementing `run`. The base class builds the fusion at the place that was asked for and calls it, standardises the features
with training statistics that travel with the weights, and checks the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from fusionzoo._display import Displayed
from fusionzoo._masks import MaskWatch
from fusionzoo._options import Configured, check_choice, check_positive
from fusionzoo._pretrained import Pretrained
from fusionzoo._registry import registry
from fusionzoo._types import Options
from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.fusion import Dims, Fused, Fusion, MaskLike, projection, read_dims
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import WithReference
from fusionzoo.seams import KINDS, RESIDUAL, Dialogues, Streams, joined

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fusionzoo.batch import Batch
    from fusionzoo.data.clips.media import Medium

FusionLike = str | Options | tuple[str, Options] | Fusion


@dataclass(repr=False)
class HostOutput(Displayed):
    """What a host returns.

    logits : `(B, T, C)`, zero at padded steps.
    streams : named intermediate streams `(B, T, d)`; `"fused"` is what the fusion returned.
    losses : auxiliary losses by name, scalars, those of the fusion included.
    attention : attention maps by name.
    sequences : the frames and tokens behind a stream of the same name, `(B * T, S, d)` and bool mask `(B * T, S)` or None
        for everywhere; row `b * T + t` is utterance t of dialogue b. Only of hosts that encode clips.
    """

    logits: Tensor
    streams: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    sequences: dict[str, tuple[Tensor, Tensor | None]] = field(default_factory=dict)


def name_and_options(fusion: Options) -> tuple[str, Options]:
    """`{"name": "lmam", "rank": 4}` as `("lmam", {"rank": 4})`."""
    name = fusion.get("name")
    if not isinstance(name, str):
        raise OptionError(
            f'fusion={dict(fusion)}: expected a mapping with a name, such as {{"name": "lmam", "rank": 4}}'
        )
    return name, {k: v for k, v in fusion.items() if k != "name"}


def build_fusion(fusion: FusionLike, dims: Dims, out_dim: int | None = None) -> Fusion:
    """A fusion from a name, a mapping of its name and options, or an instance whose dims and out_dim fit.

    Raises `OptionError` when an instance was built for other widths.
    """
    dims = read_dims(dims)
    if isinstance(fusion, str):
        return registry.get(fusion)(dims, out_dim)
    if isinstance(fusion, Mapping):
        fusion = name_and_options(fusion)
    if isinstance(fusion, tuple) and len(fusion) == 2 and isinstance(fusion[1], Mapping):
        name, options = fusion
        return registry.get(name)(dims, **{"out_dim": out_dim, **options})
    if isinstance(fusion, Fusion):
        if list(fusion.dims.values()) != list(dims.values()):
            raise OptionError(
                f"the fusion instance was built for {fusion.dims}, but it will receive {dims} here; "
                "build it with those widths or give its name and let the host build it"
            )
        if out_dim is not None and fusion.out_dim != out_dim:
            raise OptionError(
                f"the fusion instance returns width {fusion.out_dim}, the host needs {out_dim}; build it with out_dim={out_dim}"
            )
        return fusion
    raise OptionError(
        f'fusion must be a name, a mapping such as {{"name": "lmam", "rank": 4}} or a Fusion, not {type(fusion).__name__}'
    )


class Standardize(nn.Module):
    """`(x - mean) / std` per modality with buffers, so that a checkpoint carries the training statistics.

    The identity until `fit` is called. From then on values are clipped to `LIMIT` deviations: features such as counts
    of laughter have tails that a new speaker can stretch far beyond what was trained on.
    """

    LIMIT = 5.0

    def __init__(self, dims: Mapping[str, int]):
        super().__init__()
        self.names = tuple(dims)
        self.limit: Tensor
        self.register_buffer("limit", torch.tensor(torch.inf))
        for i, width in enumerate(dims.values()):
            self.register_buffer(f"mean{i}", torch.zeros(width))
            self.register_buffer(f"std{i}", torch.ones(width))

    @torch.no_grad()
    def fit(self, statistics: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
        """Set means and deviations; a feature that never varies keeps a deviation of one."""
        for i, name in enumerate(self.names):
            mean, std = (torch.as_tensor(s, dtype=torch.float32) for s in statistics[name])
            own_mean, own_std = self.get_buffer(f"mean{i}"), self.get_buffer(f"std{i}")
            if mean.shape != own_mean.shape or std.shape != own_std.shape:
                raise ShapeError(
                    f"statistics of {name!r} have shape {tuple(mean.shape)}, expected {tuple(own_mean.shape)}"
                )
            own_mean.copy_(mean)
            own_std.copy_(torch.where(std > 1e-6, std, 1.0))
        self.limit.fill_(self.LIMIT)

    def forward(self, features: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
        out: dict[str, Tensor | None] = {}
        for i, name in enumerate(self.names):
            x = features.get(name)
            if x is not None:
                x = (x - self.get_buffer(f"mean{i}")) / self.get_buffer(f"std{i}")
                x = x.clamp(-self.limit, self.limit)
            out[name] = x
        return out


class Host(Configured, Pretrained, WithReference, nn.Module):
    """Base class of every host.

    Parameters
    ----------
    dims : mapping of modality name to feature width.
    num_classes : C.
    num_speakers : the largest number of speakers in one dialogue.
    fusion : a name, a name with options (`{"name": "lmam", "rank": 4}`) or a `Fusion` instance. With one modality there is
        nothing to fuse and none is built: see `built_fusion`.
    placement : where the fusion sits, one of `placements`; None for the first.
    fusion_width : width of what the fusion returns; None for that of the place.

    Shapes
    ------
    batch : `Batch`.
    returns : `HostOutput` with logits `(B, T, C)`. Its attention maps are filled while `host.keep_attention` is True; they
        cost time that training does not need.

    Notes
    -----
    A subclass names in `placements` where the fusion may sit, the default first. While it builds itself it hands the widths
    of its streams through `seam` at each of these places, and while it runs the streams through `fuse_at`; whether the
    fusion sits there, and how wide it is, is the base's business. What runs between two seams is written once, for however
    many streams there are:

    ```python
    class Recurrent(fusionzoo.Host):
        placements = ("late", "early")

        def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, hidden: int = 64):
            super().__init__(dims, num_classes, num_speakers, fusion, placement)
            widths = self.seam("early", self.dims)          # {"fused": 512} if it sits here, else the dims
            self.encoders = nn.ModuleList(nn.GRU(w, hidden, batch_first=True) for w in widths.values())
            widths = self.seam("late", dict.fromkeys(widths, hidden), out_dim="sum")
            self.head = nn.Linear(sum(widths.values()), self.num_classes)

        def run(self, streams, dialogues):
            streams = self.fuse_at("early", streams, dialogues)
            encoded = zip(self.encoders, streams.items())
            streams = {m: None if x is None else encode(x)[0] for encode, (m, x) in encoded}
            (context,) = self.fuse_at("late", streams, dialogues).values()
            dialogues.show({"context": context})
            return self.head(context)
    ```

    `dialogues` (`fusionzoo.seams.Dialogues`) holds mask, speakers, padding and presence, and takes what is worth reporting.
    A placement `early-residual` sits at the seam `early` and adds a linear map of the streams side by side. Seams of other
    kinds leave the streams beside the fused one, or join it to them further down, see `seam`. Hosts that need none of this
    implement `encode` with `make_fusion` themselves. `search_space` is what `compare --tune` searches besides, or otherwise
    than, everybody's: option -> choices or `{"low", "high", "log"}`.
    """

    kind: ClassVar[str] = "host"
    modalities: ClassVar[tuple[int, int | None]] = (1, None)
    handles: ClassVar[frozenset[str]] = frozenset({"masks", "missing"})
    placements: ClassVar[tuple[str, ...]] = ("late",)
    search_space: ClassVar[Mapping[str, object]] = {}

    def __init__(  # pyright: ignore[reportRedeclaration]
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        fusion_width: int | None = None,
    ):
        super().__init__()
        self.dims = read_dims(dims, self)
        self.names = tuple(self.dims)
        self.num_classes = check_positive(num_classes, "num_classes", self)
        self.num_speakers = check_positive(num_speakers, "num_speakers", self)
        self.placement = check_choice(placement or self.placements[0], self.placements, "placement", self)
        self.fusion_width = None if fusion_width is None else check_positive(fusion_width, "fusion_width", self)
        self.fusion_like = fusion
        self.fusion: Fusion | None = None
        self.seam_kind = ""
        self.seam_widths: tuple[int, ...] = ()
        self.keep_attention = False
        self.mask_watch = MaskWatch()
        self.standardize = Standardize(self.dims)

    if TYPE_CHECKING:
        # Of what `get` returns only the base class is known: the options that its constructor takes may be any.
        def __init__(
            self,
            dims: Dims,
            num_classes: int,
            num_speakers: int,
            fusion: FusionLike = "concat",
            placement: str | None = None,
            **options: object,
        ): ...

    # -- where the fusion sits ----------------------------------------------------------------------------------------

    def seam(
        self,
        place: str,
        widths: Mapping[str, int],
        out_dim: int | Literal["sum"] | None = None,
        kind: Literal["replace", "beside", "around"] = "replace",
    ) -> dict[str, int]:
        """Name a place where the fusion may sit, and build the fusion if it is the one asked for.

        Parameters
        ----------
        place : one of `placements`.
        widths : of the streams there, by modality.
        out_dim : width of what the fusion returns if neither `fusion_width` nor an instance says it: None for the anchor's,
            `"sum"` for the summed width, so that concatenation is concatenation.
        kind : what goes on. `"replace"`: the fused stream in the place of all. `"beside"`: the streams and, mapped to their
            width, the fused one. `"around"`: the streams side by side, while the fusion of linear maps of them (`out_dim`
            wide) comes back at `rejoin`.

        Returns
        -------
        The widths of the streams that go on, by name: unchanged where the fusion sits elsewhere, else `fused`, or `joined`
        for the streams side by side.
        """
        check_choice(kind, KINDS, "kind", self)
        if len(self.dims) == 1:
            if hasattr(self, "fusion_like"):
                del self.fusion_like
            return dict(widths)
        if place != self.placement.removesuffix(RESIDUAL):
            return dict(widths)
        self.seam_kind, self.seam_widths = kind, tuple(widths.values())
        total = sum(self.seam_widths)
        if kind == "around":
            out_dim = self.seam_widths[0] if not isinstance(out_dim, int) else out_dim
            self.projections = nn.ModuleList(nn.Linear(w, out_dim) for w in self.seam_widths)
            widths = dict.fromkeys(widths, out_dim)
        # An instance brings its own width; its dims and out_dim are checked where they must fit.
        own = None if isinstance(self.fusion_like, Fusion) else total if out_dim == "sum" else out_dim
        self.fusion = self.make_fusion(widths, self.fusion_width or own)
        if self.placement.endswith(RESIDUAL):
            self.skip = nn.Linear(total, self.fusion.out_dim)
        if kind == "beside":
            width = self.seam_widths[0]
            self.join = projection(self.fusion.out_dim, width)
            return {**widths, "fused": width}
        return {"joined": total} if kind == "around" else {"fused": self.fusion.out_dim}

    def rejoin(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Name where a fusion of the kind `"around"` comes back: the one stream there is mapped to its width and added."""
        if self.seam_kind != "around" or self.fusion is None:
            return dict(widths)
        (width,) = widths.values()
        self.mix = nn.Linear(width, self.fusion.out_dim)
        return {"fused": self.fusion.out_dim}

    def fuse_at(self, place: str, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor | None]:
        """The streams that go on from a seam, as `seam` said."""
        if self.fusion is None or place != self.placement.removesuffix(RESIDUAL):
            return dict(streams)
        there = [None if m in dialogues.missing else streams[m] for m in self.names]
        given = there
        if self.seam_kind == "around":
            given = [None if x is None else p(x) for p, x in zip(self.projections, there, strict=True)]
        fused = self.call_fusion(self.fusion, given, dialogues)
        dialogues.take(fused)
        y = fused.fused
        if self.placement.endswith(RESIDUAL):
            y = y + self.skip(self._side_by_side(there, dialogues))
        if self.seam_kind == "around":
            dialogues.aside, dialogues.present["joined"] = y, dialogues.mask
            return {"joined": self._side_by_side(there, dialogues)}
        dialogues.present["fused"] = dialogues.mask
        if self.seam_kind == "beside":
            return {**streams, "fused": zero_padded(self.join(y), dialogues.mask)}
        return {"fused": y}

    def _side_by_side(self, streams: list[Tensor | None], dialogues: Dialogues) -> Tensor:
        present = [dialogues.present[m] for m in self.names]
        kept = [
            x if x is None or p is dialogues.mask else zero_padded(x, p) for x, p in zip(streams, present, strict=True)
        ]
        return joined(kept, self.seam_widths)

    def rejoined(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor | None]:
        """The streams that go on from `rejoin`."""
        if dialogues.aside is None:
            return dict(streams)
        (x,) = streams.values()
        assert x is not None
        dialogues.present["fused"] = dialogues.mask
        return {"fused": self.mix(x) + dialogues.aside}

    def call_fusion(self, fusion: Fusion, streams: list[Tensor | None], dialogues: Dialogues) -> Fused:
        """What the fusion makes of streams in the order of its modalities."""
        return fusion.fuse(streams, dialogues.mask_for(fusion), attention=self.keep_attention)

    @classmethod
    def one_spelling(cls, arguments: Mapping[str, object]) -> dict[str, object]:
        """A fusion with options as the pair that hosts look into."""
        fusion = arguments.get("fusion")
        return {"fusion": name_and_options(fusion)} if isinstance(fusion, Mapping) else {}

    def make_fusion(self, dims: Dims, out_dim: int | None = None) -> Fusion:
        """Build the fusion that this host was asked for, for the given widths."""
        fusion = build_fusion(self.fusion_like, dims, out_dim)
        del self.fusion_like
        return fusion

    @property
    def built_fusion(self) -> Fusion | None:
        """The fusion inside; None where none was built, as with one modality, whatever the constructor was given."""
        return next((m for m in self.modules() if isinstance(m, Fusion)), None)

    def fit_features(self, statistics: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
        """Standardise features with these `{modality: (mean (d,), std (d,))}` of the training split from now on."""
        self.standardize.fit(statistics)

    def check_media(self, media: Mapping[str, Medium]) -> None:
        """Raise `OptionError`: this host reads features; hosts with encoders of their own check that the media suit them."""
        others = ", ".join(registry.names_that("host", handles="clips")) or "none is installed"
        raise OptionError(
            f"the host {type(self).__name__} takes features, and data.media reads recordings; take a host that encodes them "
            f"({others}), or make features first with `fusionzoo extract` and leave data.media out"
        )

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        """The host itself: logits `(B, T, C)`.

        Parameters
        ----------
        streams : standardised features by modality, `(B, T, d_m)`, zero at padded steps; None where one is missing for the
            whole batch.
        dialogues : mask, speakers and padding of the batch; what is reported to it goes into the `HostOutput`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement run(streams, dialogues), or encode(features, mask, batch)"
        )

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        """What `run` returns and reports; a host that calls its fusion itself overrides this in its place.

        Parameters
        ----------
        features : standardised, `(B, T, d_m)`, zero at padded steps; None where a modality is missing for the batch.
        mask : what to hand to a fusion: bool `(B, T)`, or a mapping when modalities are missing at some utterances.
        batch : the batch.
        """
        if len(self.dims) > 1 and hasattr(self, "fusion_like"):
            raise OptionError(
                f"{type(self).__name__} lists the placement {self.placement!r} and has built no fusion for it: its constructor "
                f"must name the place, widths = self.seam({self.placement.removesuffix(RESIDUAL)!r}, widths)"
            )
        streams = {m: features.get(m) for m in self.names}
        dialogues = Dialogues.of(batch, streams, mask, self.num_speakers, self.keep_attention)
        logits = self.run(streams, dialogues)
        return HostOutput(logits, dialogues.streams, dialogues.losses, dialogues.attention)

    def forward(self, batch: Batch) -> HostOutput:
        """Logits for every utterance of a batch."""
        if batch.clips:
            others = ", ".join(registry.names_that("host", handles="clips")) or "none is installed"
            raise ShapeError(
                f"{type(self).__name__} takes features, and this batch holds clips of {', '.join(batch.clips)}: take a host "
                f"that encodes them ({others}), or make features first with `fusionzoo extract`"
            )
        self._check(batch)
        self.mask_watch.look(self, batch.features.values(), batch.mask)
        mask = batch.modality_masks()
        features = self.standardize(batch.features)
        for name, x in features.items():
            if x is not None:
                features[name] = zero_padded(
                    x, mask[name] if isinstance(mask, Mapping) and name in mask else batch.mask
                )
        out = self.encode(features, mask, batch)
        out.logits = zero_padded(out.logits, batch.mask)
        return out

    def fused_output(self, fused: Fused, logits: Tensor) -> HostOutput:
        """A `HostOutput` that carries what the fusion reported."""
        return HostOutput(logits, {"fused": fused.fused, **fused.streams}, dict(fused.losses), dict(fused.attention))

    def _head_of_repr(self) -> str:
        alone = "" if self.built_fusion is not None else f", no fusion: {', '.join(self.names)} alone"
        return f"{dict(self.dims)} -> {self.num_classes} classes, {self.num_speakers} speakers{alone}"

    def _check(self, batch: Batch) -> None:
        unknown = [m for m in batch.features if m not in self.dims]
        if unknown:
            raise ShapeError(
                f"the batch has the modality {unknown[0]!r}, but {type(self).__name__} was built for {', '.join(self.names)}; "
                "select modalities when loading the data"
            )
        if not any(x is not None for x in batch.features.values()):
            raise ShapeError(f"the batch has no features; {type(self).__name__} needs one of {', '.join(self.names)}")
        for name, x in batch.features.items():
            expected = (*batch.mask.shape, self.dims[name])
            if x is not None and tuple(x.shape) != expected:
                raise ShapeError(
                    f"the features of {name!r} have shape {tuple(x.shape)}, but {type(self).__name__} expects {expected}: "
                    f"(B, T) as in the mask and the width it was built with (dims={self.dims})"
                )
