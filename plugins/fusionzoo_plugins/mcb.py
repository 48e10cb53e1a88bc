"""Compact bilinear pooling: all products of features across modalities, in a sketch of fixed width."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams


class MCB(Fusion):
    r"""Multimodal compact bilinear pooling (MCB), for any number of modalities.

    .. math::
        \psi_m(x)_j = \sum_{i : h_m(i) = j} s_m(i)\,x_i, \qquad
        z = \mathcal F^{-1}\Big(\prod_m \mathcal F\,\psi_m(x_m)\Big), \qquad
        y = \frac{\operatorname{sgn}(z) \sqrt{|z|}}{\lVert \cdot \rVert_2}

    The circular convolution of count sketches is the count sketch of the outer product :math:`x_1 \otimes \dots \otimes
    x_M`, without forming it. The hashes :math:`h_m` and signs :math:`s_m` are drawn once from `seed`, do not learn, and are
    saved with the weights. An absent modality leaves the convolution alone. Acts within a time step.

    Departs from the paper: hashes are drawn so that buckets differ by one entry at most: inner products are preserved
    no worse, and no two features of a modality collide where the sketch is at least as wide; the square root is smoothed at zero,
    :math:`z / \sqrt{|z| + 10^{-6}}`, where its slope is infinite; M > 2. The Fourier transform runs in float32 whatever
    the streams are (float64 stays).

    Options
    -------
    sketch : width D; default the smallest power of two that is not below the summed width, at most 16384 (the paper
        has 16000).
    seed : of hashes and signs, default 0.

    Parameters: none but the output map, :math:`(D + 1)\,out`.
    Source: Fukui et al., "Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual Grounding", EMNLP
    2016, arXiv 1606.01847, section 3.1; Pham and Pagh, "Fast and scalable polynomial kernels via explicit feature maps",
    KDD 2013.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> MCB({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        sketch: int | None = None,
        seed: int = 0,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise OptionError(f"MCB: seed must be an integer from 0, not {seed!r}")
        widths = list(self.dims.values())
        self.sketch = _width(widths) if sketch is None else check_positive(sketch, "sketch", self)
        generator = torch.Generator(device="cpu").manual_seed(seed)
        for i, d in enumerate(widths):
            # A permutation of inputs and empty slots; slot p belongs to bucket p mod D. Gathering is deterministic on
            # every device, forward and backward, and adding at random places is not.
            slots = -(-d // self.sketch) * self.sketch
            order = torch.randperm(slots, generator=generator, device="cpu").clamp(max=d)
            sign = torch.randint(2, (d,), generator=generator, device="cpu") * 2.0 - 1
            self.register_buffer(f"order_{i}", order)
            self.register_buffer(f"sign_{i}", sign)
        self.set_width(self.sketch)

    def count_sketch(self, x: Tensor, modality: int) -> Tensor:
        """The count sketch `(..., D)` of `x (..., d_m)`."""
        order, sign = getattr(self, f"order_{modality}"), getattr(self, f"sign_{modality}")
        slots = F.pad(x * sign.to(x.dtype), (0, 1)).index_select(-1, order)
        return reduce(slots, "... (n sketch) -> ... sketch", "sum", sketch=self.sketch)

    def combine(self, streams: Streams) -> Fused:
        presence = streams.presence()
        product: Tensor | None = None
        for i, x in enumerate(streams.x):
            exact = x if x.dtype == torch.float64 else x.float()
            sketch = self.count_sketch(exact, i)
            if presence is not None:  # One in the first place, zero elsewhere, is the one of convolution.
                one = (torch.arange(self.sketch, device=x.device) == 0).to(sketch.dtype)
                sketch = torch.where(presence[..., i : i + 1], sketch, one)
            spectrum = torch.fft.rfft(sketch, n=self.sketch)
            product = spectrum if product is None else product * spectrum
        assert product is not None
        z = torch.fft.irfft(product, n=self.sketch)
        rooted = z * (z.abs() + 1e-6).rsqrt()
        return Fused(F.normalize(rooted, dim=-1, eps=1e-6).to(streams.x[0].dtype))


def _width(widths: list[int]) -> int:
    return min(1 << (sum(widths) - 1).bit_length(), 1 << 14)


fusionzoo_register = fusionzoo.plugin(
    MCB,
    summary="count sketch of the outer product of all modalities",
    paper="Fukui et al., Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual Grounding, "
    "EMNLP 2016, arXiv 1606.01847",
    diagram="""
    text["x_text"] --> st["count sketch"]
    audio["x_audio"] --> sa["count sketch"]
    st -- "FFT" --> mul(("x"))
    sa -- "FFT" --> mul
    mul -- "inverse FFT" --> root["signed root"]
    root --> norm["L2 norm"]
    """,
)
