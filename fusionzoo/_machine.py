"""What a number was measured on: the processor or accelerator, its threads, the versions."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name as the system gives it, with the vector instructions that torch uses: `... (AVX2)`."""
    name = platform.processor() or platform.machine()
    try:  # Linux, where `platform` knows the architecture alone
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    known = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    name = next((v.strip() for k, v in known.items() if k.strip() == "model name"), "") or name
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def device_name(device: torch.device | str) -> str:
    """What a device is: the name of the GPU, or the processor's."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def conditions(device: torch.device | str = "cpu") -> str:
    """One line to write beside what was measured on a device."""
    threads = torch.get_num_threads()
    return (
        f"{device_name(device)}, {threads} {'thread' if threads == 1 else 'threads'}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )
