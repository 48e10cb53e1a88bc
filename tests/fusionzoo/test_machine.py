"""What numbers were measured on is said."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import pytest
import torch

from fusionzoo import _machine


def test_the_conditions_name_processor_threads_and_versions(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    text = _machine.conditions()
    assert _machine.processor() in text
    assert ", 1 thread, " in text
    assert f"torch {torch.__version__}, Python {platform.python_version()}" in text
    assert torch.backends.cpu.get_cpu_capability() in text


def test_a_gpu_has_its_own_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"A GPU of number {device.index}")
    assert _machine.conditions("cuda:1").startswith("A GPU of number 1, ")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("processor\t: 0\nmodel name\t: Some Core 5\nflags\t: a b\n\nprocessor\t: 1\nmodel name\t: Some Core 5\n", "Some Core 5"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nno colon here\n", "arm"),
        (None, "arm"),
    ],
    ids=["Linux", "Linux without names", "elsewhere"],
)  # fmt: skip
def test_the_processor_is_named_wherever_it_can_be(file, name, monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    if file is not None:
        path.write_text(file)
    monkeypatch.setattr(_machine, "Path", lambda _: path)
    monkeypatch.setattr(_machine, "platform", SimpleNamespace(processor=lambda: "", machine=lambda: "arm"))
    assert _machine.processor().startswith(f"{name} (")
