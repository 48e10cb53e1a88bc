"""Accelerate's memory of the processes, which outlives a run."""

from __future__ import annotations

import torch


def several_processes() -> bool:
    """Whether this process is one of several that were started together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def forget_accelerate() -> None:
    """Let the next run in this process choose its device and precision; how processes reach each other stays.

    Accelerate keeps its state for the process's lifetime and has no public way to begin anew.
    """
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=not several_processes())
