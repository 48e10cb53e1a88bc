"""What a run's numbers depend on besides its configuration: versions, device, source tree."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusionzoo

if TYPE_CHECKING:
    from accelerate import Accelerator


def environment_of(accelerator: Accelerator) -> dict[str, Any]:
    """What `environment.json` says of the machine and of what is installed."""
    import torch

    from fusionzoo._machine import device_name

    device = {"type": str(accelerator.device), "name": device_name(accelerator.device)}
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": {**device, "processes": accelerator.num_processes},
        "threads": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
        "packages": package_versions(),
        "git": git_commit(),
    }


def package_versions() -> dict[str, str]:
    """Versions of the distributions that decide a run's numbers, the providers of plugins included."""
    from fusionzoo._installed import versions
    from fusionzoo._registry import registry

    names = {"fusionzoo", "torch", "torch-geometric", "accelerate", "numpy", "scikit-learn", "safetensors"}
    offers = (p for kinds in registry.index().values() for providers in kinds.values() for p in providers)
    names |= {p.distribution for p in offers if p.version and not p.trouble}
    return dict(sorted(versions(names).items())) | {"fusionzoo": fusionzoo.__version__}


def git_commit() -> str | None:
    """Commit of the source tree that fusionzoo runs from, with `+changes` when it has any; None outside a checkout."""
    here = Path(fusionzoo.__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        ask = {"cwd": here, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **ask).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")
