"""Random numbers of a patch: the host draws the same ones with a fusion as without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.fusion import Fusion


class OwnRandomness:
    """Runs a fusion with random numbers of its own, so that the host draws the same ones as without it.

    A repeated run of the same segment (gradient checkpointing) starts from the same random state of the host, and is given
    the same numbers again.
    """

    def __init__(self, layer: Any, device: torch.device):
        self.layer, self.device = layer, device
        self.active = layer.training and _stochastic(layer)
        self.state = f"state of {device}"  # replicas on several devices share the memory

    def __enter__(self) -> None:
        if not self.active:
            return
        memory = self.layer._random
        self.saved = self._get()
        key = hash(bytes(self.saved.numpy())) if self.device.type == "cpu" else hash(bytes(self.saved.cpu().numpy()))
        again = torch._C._current_graph_task_id() != -1 and key in memory.get("seen", {})
        if again:
            self._set(memory["seen"][key])
            self.key = None
            return
        if self.state in memory:
            self._set(memory[self.state])
        else:
            generator = torch.Generator(self.device)
            generator.manual_seed((torch.initial_seed() * 2654435761 + 97) % (1 << 63))
            self._set(generator.get_state())
        seen = memory.setdefault("seen", {})
        if len(seen) > 64:
            seen.clear()
        seen[key] = self._get()
        self.key = key

    def __exit__(self, *_: Any) -> None:
        if self.active:
            if self.key is not None:
                self.layer._random[self.state] = self._get()
            self._set(self.saved)

    def _get(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else torch.get_rng_state()

    def _set(self, state: Tensor) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state, self.device)
        else:
            torch.set_rng_state(state)


def _stochastic(layer: Any) -> bool:
    known = layer._random.get("stochastic")
    if known is None:
        known = False
        for m in layer.fusion.modules():
            for name, value in vars(m).items():
                if name in ("p", "dropout") and isinstance(value, (int, float)) and value > 0:
                    known = True
                if "dropout" in name and isinstance(value, float) and value > 0:
                    known = True
            if not isinstance(m, (Fusion, nn.Linear, nn.LayerNorm)) and "noise" in type(m).__name__.lower():
                known = True
        layer._random["stochastic"] = known
    return known
