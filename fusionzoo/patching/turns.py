"""One thread at a time: looking into a model, and changing it, uses what the whole process shares.

That is torch's random state and its stance on compiled code, hooks on every module, and the model's own attributes, which are
put back after a look. Running models, patched ones too, needs no turn.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_turn = threading.RLock()  # one function that takes turns may call another


def in_turn(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which waits until no other thread is in one of these."""

    @functools.wraps(function)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        with _turn:
            return function(*args, **kwargs)

    return waiting
