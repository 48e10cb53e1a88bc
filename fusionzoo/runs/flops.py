"""Counting what a forward pass costs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from fusionzoo.data.loading import split_of
from fusionzoo.runs.models import build_host

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ModelFile
    from fusionzoo.data.corpus import Corpus


def flops_of(call: Callable[[], object]) -> int | None:
    """Floating-point operations in the matrix products of a call; None where it does something that cannot be counted."""
    with warnings.catch_warnings():
        # oneDNN's fused recurrences hide their products from the counter, and switching it off warns about Intel GPUs.
        warnings.simplefilter("ignore")
        try:
            with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
                call()
        # The last of parametrised weights, whose property hides what went wrong.
        except (RuntimeError, NotImplementedError, AttributeError):
            return None
    return counter.get_total_flops()


def flops_per_utterance(meta: ModelFile, corpus: Corpus, split: str) -> float | None:
    """Of one forward pass over some dialogues, on a CPU copy with fresh weights; None where that cannot be counted.

    Parameters
    ----------
    meta : the contents of `model.json`.
    corpus : what the model was trained on.
    split : where the dialogues are taken from.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        host = build_host(meta).eval()
        size = 8 if corpus.features else 1  # a recording may cost much
        batch = next(iter(split_of(corpus, split).batches(size, shuffle=False, seed=0, epoch=0)))
        total = flops_of(lambda: host(batch))
    return None if total is None else total / max(batch.num_utterances, 1)
