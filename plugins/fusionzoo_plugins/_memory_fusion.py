"""What MFN and Graph-MFN share: one LSTM per modality in a single loop, and the gated memory that reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.fusion import Fused, Fusion, Streams
from fusionzoo.kernels.recurrence import recurrent, scan
from fusionzoo.layers import dropout
from fusionzoo_plugins._per_modality import Sizes, per_modality
from fusionzoo_plugins._two_layers import TwoLayers


@recurrent("mfn.lstm")
def lstm_step(carry: Sequence[Tensor], now: Sequence[Tensor], constants: Sequence[Tensor]) -> Sequence[Tensor]:
    """Hidden and cell states `(B, H)` one step on; now : gates before the recurrent product, and where states move."""
    (h, c), (weight,) = carry, constants
    i, f, g, o = (now[0] + (h @ weight).unflatten(-1, (4, -1))).unbind(1)
    new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    new_h = o.sigmoid() * new_c.tanh()
    if len(now) == 1:
        return new_h, new_c
    return torch.where(now[1], new_h, h), torch.where(now[1], new_c, c)


class MemoryFusion(Fusion):
    """What MFN and Graph-MFN share: an LSTM per modality at the bottom, a gated memory and an output map on top.

    Subclasses call `build_lstms`, build what reads the LSTMs, call `build_memory`, and implement `states`.
    """

    head: TwoLayers | None

    def build_lstms(self, hidden: Sizes, pool: str | None, dropout: float, **sizes: int) -> list[int]:
        """Check the options, `sizes` by their names; the widths of the LSTMs."""
        widths = per_modality(hidden, self.names, "hidden", self)
        for option, size in sizes.items():
            check_positive(size, option, self)
        self.pool = None if pool is None else check_choice(pool, ("last",), "pool", self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.lstms = ModalityLSTMs(list(self.dims.values()), widths)
        return widths

    def build_memory(self, inputs: int, memory: int, update: int, retain: int, write: int, head: int | None) -> None:
        """The memory of what is `inputs` wide, and the output map."""
        self.memory = GatedMemory(inputs, memory, update, retain, write, self.dropout)
        total = sum(self.lstms.hidden) + memory
        self.head = None
        if head is not None:
            self.head = TwoLayers(total, check_positive(head, "head", self), self.out_dim, self.dropout)
        self.set_width(total if head is None else self.out_dim)

    def states(self, xs: list[Tensor], presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states of all modalities and the memory, `(B, T, H + u)`, and what weighs them, `(B, T, E)`.

        xs : `(B, T, d_m)` each.
        presence : bool `(B, T, M)`, where each modality is present; None for everywhere.
        """
        raise NotImplementedError

    def combine(self, streams: Streams) -> Fused:
        states, weights = self.states(streams.x, streams.presence())
        per_modality = dict(zip(self.names, states.split([*self.lstms.hidden, self.memory.width], -1), strict=False))
        fused = states[:, -1] if self.pool else states  # the state after the last real step is the last one
        maps = self.attention_maps(weights) if streams.attention else {}
        return Fused(fused if self.head is None else self.head(fused), per_modality, maps)

    def attention_maps(self, weights: Tensor) -> dict[str, Tensor]:
        """What the second of `states` is as attention."""
        return {}


class ModalityLSTMs(nn.Module):
    """An LSTM per modality, advanced together: one block-diagonal product per step, whatever the number of modalities."""

    def __init__(self, widths: Sequence[int], hidden: Sequence[int]):
        super().__init__()
        self.hidden = list(hidden)
        self.cells = nn.ModuleList(nn.LSTMCell(d, h) for d, h in zip(widths, hidden, strict=True))

    def forward(self, xs: Sequence[Tensor], presence: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden and cell states of all steps, `(B, T, H)` each, modality after modality.

        xs : `(B, T, d_m)` each.
        presence : bool `(B, T, M)`; where it is False a modality's state stays as it is.
        """
        pre = torch.cat(
            [
                rearrange(
                    F.linear(x, cell.weight_ih, cell.bias_ih + cell.bias_hh), "b t (gate h) -> b t gate h", gate=4
                )
                for x, cell in zip(xs, self._cells(), strict=True)
            ],
            -1,
        )  # (B, T, 4, H)
        blocks = [rearrange(cell.weight_hh, "(gate h) k -> gate h k", gate=4) for cell in self._cells()]
        recurrent_weight = torch.cat([torch.block_diag(*(b[gate] for b in blocks)) for gate in range(4)]).t()
        zeros = xs[0].new_zeros(xs[0].shape[0], sum(self.hidden))
        inputs = [pre]
        if presence is not None:
            inputs.append(
                torch.cat([presence[..., m : m + 1].expand(-1, -1, h) for m, h in enumerate(self.hidden)], -1)
            )
        h, c = scan("mfn.lstm", [zeros, zeros.clone()], inputs, [recurrent_weight])
        return h, c

    def _cells(self) -> list[nn.LSTMCell]:
        return [c for c in self.cells if isinstance(c, nn.LSTMCell)]


def previous(states: Tensor) -> Tensor:
    """The states one step before, zeros before the first; `(B, T, d)`."""
    return torch.cat([torch.zeros_like(states[:, :1]), states], 1)[:, :-1]


@recurrent("mfn.memory")
def memory_step(carry: Sequence[Tensor], now: Sequence[Tensor], constants: Sequence[Tensor]) -> Sequence[Tensor]:
    """The memory `(B, u)` one step on.

    now : proposal, both gates' first layers without the memory's share, what dropout leaves of them (in training), and bool
        `(B, 1)` where the memory moves (with a mask).
    """
    (u,), (proposal, *rest) = carry, now
    real = rest.pop() if rest[-1].dtype == torch.bool else None
    own, last = constants[:2], constants[2:]
    gates = []
    for k in range(2):
        hidden = torch.relu(rest[k] + u @ own[k])
        hidden = hidden * rest[2 + k] if len(rest) > 2 else hidden
        gates.append(F.linear(hidden, last[2 * k], last[2 * k + 1]).sigmoid())
    new = gates[0] * u + gates[1] * proposal
    return (new if real is None else torch.where(real, new, u),)


class GatedMemory(nn.Module):
    r"""The multi-view gated memory: what the modalities say together is written, what is no longer true fades.

    .. math::
        u_t = \sigma(D_1[a_t; u_{t-1}])\, u_{t-1} + \sigma(D_2[a_t; u_{t-1}])\, \tanh D_u(a_t)
    """

    def __init__(self, inputs: int, width: int, update: int, retain: int, write: int, dropout: float):
        super().__init__()
        self.inputs, self.width, self.dropout = inputs, width, dropout
        self.update = TwoLayers(inputs, update, width, dropout)
        self.retain = TwoLayers(inputs + width, retain, width, dropout)
        self.write = TwoLayers(inputs + width, write, width, dropout)

    def forward(self, attended: Tensor, real: Tensor | None) -> Tensor:
        """Memory of all steps, `(B, T, width)`; attended `(B, T, inputs)`, real bool `(B, T)` or None."""
        proposal = self.update(attended).tanh()
        gates = (self.retain, self.write)
        # Only the products with the memory itself have to wait for it.
        pre = [F.linear(attended, g.fc1.weight[:, : self.inputs], g.fc1.bias) for g in gates]
        own = [g.fc1.weight[:, self.inputs :].t() for g in gates]
        last = [p for g in gates for p in (g.fc2.weight, g.fc2.bias)]
        inputs = [proposal, *pre]
        if self.training and self.dropout:
            inputs += [dropout(torch.ones_like(p), self.dropout, True) for p in pre]
        if real is not None:
            inputs.append(real.unsqueeze(-1))
        zeros = attended.new_zeros(attended.shape[0], self.width)
        (memory,) = scan("mfn.memory", [zeros], inputs, [*own, *last])
        return memory
