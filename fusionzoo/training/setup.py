"""What a run needs from torch and Accelerate: device, precision, processes, seeds, threads, optimizer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fusionzoo._processes import forget_accelerate
from fusionzoo.errors import MissingDependency, TrainingError
from fusionzoo.runs.config import RunConfig, flatten

if TYPE_CHECKING:
    from accelerate import Accelerator


def seed_everything(seed: int, epoch: int, process: int) -> None:
    """Seed every global generator from (seed, epoch, process)."""
    from accelerate.utils import set_seed

    set_seed(int(np.random.SeedSequence([seed, epoch, process]).generate_state(1)[0]))


@contextmanager
def torch_settings(config: RunConfig) -> Iterator[None]:
    """The run's threads and determinism; the caller's settings come back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def make_accelerator(config: RunConfig, folder: Path) -> Accelerator:
    """Accelerate with the run's device, precision and tracker.

    Raises
    ------
    TrainingError : the device is not there, or cannot compute like this.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration

    device, precision = config.training.device, config.training.precision
    kind = device.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda", "mps"):
        raise TrainingError(f"training.device={device!r} is not one of auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError("training.device=cuda, but torch sees no CUDA device; use training.device=auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise TrainingError("training.device=mps, but torch sees no such device; use training.device=auto or cpu")
    if device.startswith("cuda:"):
        index = device.partition(":")[2]
        if not index.isdigit() or int(index) >= torch.cuda.device_count():
            raise TrainingError(f"training.device={device!r}, but torch sees {torch.cuda.device_count()} CUDA devices")
        torch.cuda.set_device(int(index))
    on_cuda = kind != "cpu" and torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if on_cuda and torch.cuda.is_bf16_supported() else "no"
    if precision == "fp16" and not on_cuda:
        raise TrainingError("training.precision=fp16 needs a GPU; on a CPU use bf16 or no")
    forget_accelerate()
    try:
        return Accelerator(
            cpu=kind == "cpu",
            mixed_precision=precision,
            log_with=config.training.tracker,
            project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "tracker")),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except (ValueError, ImportError) as error:
        raise TrainingError(f"Accelerate cannot be set up with this configuration: {error}") from error


def start_tracker(accelerator: Accelerator, config: RunConfig) -> bool:
    """Start the tracker that the run names, if it names one; whether it does."""
    name = config.training.tracker
    if not name:
        return False
    if not accelerator.log_with:
        raise MissingDependency(name, purpose=f"training.tracker={name}")
    simple = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in flatten(config.to_dict()).items()}
    accelerator.init_trackers("fusionzoo", config=simple)
    return True


def make_optimizer(config: RunConfig, parameters: list[nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """The run's optimizer, in its fastest form on the device."""
    settings = config.training
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, nesterov=True, **common)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, fused=device.type == "cuda", **common)


def restore_optimizer(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Load the moments of an optimizer's state dict; its settings are those of the configuration, whatever the file says.

    Raises
    ------
    ValueError : a moment is not of its parameter's shape, or not there.
    """
    needed = {"momentum_buffer"} if "momentum" in optimizer.param_groups[0] else {"step", "exp_avg", "exp_avg_sq"}
    own = optimizer.state_dict()["param_groups"]
    count, shapes = 0, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            shapes[count] = parameter.shape
            count += 1
    moments = dict(state["state"])
    for index, values in moments.items():
        if not needed <= values.keys():
            raise ValueError(f"parameter {index} lacks {', '.join(sorted(needed - values.keys()))}")
        for name, value in dict(values).items():
            if index not in shapes or not isinstance(name, str):
                raise ValueError(f"parameter {index!r} is not one of {count}")
            fits = isinstance(value, (int, float, type(None))) or (
                isinstance(value, Tensor) and value.layout == torch.strided and value.shape in (shapes[index], ())
            )
            if not fits:
                raise ValueError(f"{name!r} of parameter {index} does not have its shape {tuple(shapes[index])}")
    optimizer.load_state_dict({"state": moments, "param_groups": own})


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average a step; integer and non-learnt buffers are copied."""
    mine: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(model.parameters())
    get_ema_multi_avg_fn(decay)(mine, theirs, 0)
    for to, source in zip(average.buffers(), model.buffers(), strict=True):
        to.copy_(source)
