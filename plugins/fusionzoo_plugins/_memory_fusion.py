"""What MFN and Graph-MFN share: one LSTM a modality in a single loop, and the gated memory that reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo_plugins._two_layers import TwoLayers

#: Official name of the modalities in the order of `dims`: language, audio, visual.
LETTERS = "lav"


class ModalityLSTMs(nn.Module):
    """An LSTM a modality, advanced together: one block-diagonal product a step, whatever the number of modalities."""

    def __init__(self, widths: Sequence[int], hidden: Sequence[int]):
        super().__init__()
        self.hidden = list(hidden)
        self.cells = nn.ModuleList(nn.LSTMCell(d, h) for d, h in zip(widths, hidden, strict=True))

    def forward(self, xs: Sequence[Tensor], presence: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden and cell states of all steps, `(B, T, H)` each, modality after modality.

        xs : `(B, T, d_m)` each. presence : bool `(B, T, M)`; where it is False a modality's state stays as it is.
        """
        pre = torch.cat(
            [
                F.linear(x, cell.weight_ih, cell.bias_ih + cell.bias_hh).unflatten(-1, (4, -1))
                for x, cell in zip(xs, self._cells(), strict=True)
            ],
            -1,
        )  # (B, T, 4, H)
        blocks = [cell.weight_hh.unflatten(0, (4, -1)).unbind(0) for cell in self._cells()]
        recurrent = torch.cat([torch.block_diag(*(b[gate] for b in blocks)) for gate in range(4)]).t()
        keep = None
        if presence is not None:
            keep = torch.cat([presence[..., m : m + 1].expand(-1, -1, h) for m, h in enumerate(self.hidden)], -1)
        h = c = xs[0].new_zeros(len(xs[0]), sum(self.hidden))
        hs, cs = [], []
        for t in range(pre.shape[1]):
            i, f, g, o = (pre[:, t] + (h @ recurrent).unflatten(-1, (4, -1))).unbind(1)
            new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            new_h = o.sigmoid() * new_c.tanh()
            c, h = (
                (new_c, new_h)
                if keep is None
                else (torch.where(keep[:, t], new_c, c), torch.where(keep[:, t], new_h, h))
            )
            hs.append(h)
            cs.append(c)
        return torch.stack(hs, 1), torch.stack(cs, 1)

    def _cells(self) -> list[nn.LSTMCell]:
        return [c for c in self.cells if isinstance(c, nn.LSTMCell)]


def previous(states: Tensor) -> Tensor:
    """The states one step before, zeros before the first; `(B, T, d)`."""
    return F.pad(states[:, :-1], (0, 0, 1, 0))


class GatedMemory(nn.Module):
    r"""The multi-view gated memory: what the modalities say together is written, what is no longer true fades.

    .. math::
        u_t = \sigma(D_1[a_t; u_{t-1}])\, u_{t-1} + \sigma(D_2[a_t; u_{t-1}])\, \tanh D_u(a_t)
    """

    def __init__(self, inputs: int, width: int, update: int, retain: int, write: int, dropout: float):
        super().__init__()
        self.inputs, self.width = inputs, width
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
        u = attended.new_zeros(len(attended), self.width)
        out = []
        for t in range(attended.shape[1]):
            retain, write = (g.rest(p[:, t] + u @ w).sigmoid() for g, p, w in zip(gates, pre, own, strict=True))
            new = retain * u + write * proposal[:, t]
            u = new if real is None else torch.where(real[:, t, None], new, u)
            out.append(u)
        return torch.stack(out, 1)
