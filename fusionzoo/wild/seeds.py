"""`--seed N`: all generators start from N, and a script that seeds itself seeds with its own number plus N."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fusionzoo.wild.replaced import Replaced


@contextmanager
def shifted(seed: int | None) -> Iterator[None]:
    """Scripts with a hard-coded seed get other random numbers for every `seed` too; 0 is their own. None does nothing."""
    if seed is None:
        yield
        return
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    with Replaced() as replaced:
        for owner in (random, np.random, torch):
            name = "manual_seed" if owner is torch else "seed"
            replaced.set(owner, name, _shifting(getattr(owner, name), seed))
        yield


def _shifting(function: Callable[..., Any], by: int) -> Callable[..., Any]:
    def seeded(seed: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
            seed = (int(seed) + by) % 2**32
        return function(seed, *args, **kwargs)

    return seeded
