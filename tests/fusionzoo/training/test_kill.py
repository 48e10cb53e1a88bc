"""Runs that are killed with SIGKILL, in the middle of an epoch and of writing a checkpoint, and then resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fusionzoo.experiments.single_run import train
from fusionzoo.runs.checkpoint import list_checkpoints

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")

MID_EPOCH = """
from fusionzoo.training.trainer import Trainer
batches = Trainer.batches
def stall(self, epoch):
    whole = batches(self, epoch)
    if epoch != 3:
        return whole
    def some():
        for i, batch in enumerate(whole):
            if i == 2:
                print("NOW", flush=True)
                time.sleep(60)
            yield batch
    return some()
Trainer.batches = stall
"""

MID_CHECKPOINT = """
from fusionzoo.runs import checkpoint
sync, calls = checkpoint.sync_file, []
def stall(path):
    sync(path)
    calls.append(path)
    if path.parent.name == ".epoch-00003.partial" and path.name == "optimizer.pt":
        print("NOW", flush=True)
        time.sleep(60)
checkpoint.sync_file = stall
"""


def killed_run(tmp_path: Path, config_file: Path, out: Path, stall: str) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import sys, time\n" + textwrap.dedent(stall) + "from fusionzoo.experiments.single_run import train\n"
        "train(sys.argv[1], sys.argv[2], quiet=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, str(script), str(config_file), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "NOW"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("stall", "partial"), [(MID_EPOCH, False), (MID_CHECKPOINT, True)], ids=["epoch", "checkpoint"]
)
def test_resumes_to_the_numbers_of_an_uninterrupted_run(tmp_path, make_config, stall, partial):
    config = make_config("training.ema=0.8", "training.patience=0")
    file, cut, whole = tmp_path / "c.yaml", tmp_path / "cut", tmp_path / "whole"
    file.write_text(config.to_yaml())
    killed_run(tmp_path, file, cut, stall)
    assert [epoch for epoch, _ in list_checkpoints(cut)] == [1, 2]
    assert (cut / "checkpoints" / ".epoch-00003.partial").exists() == partial
    assert not (cut / "result.json").exists()

    train(config, cut, resume=True, quiet=True)
    train(config, whole, quiet=True)
    one, two = load_file(cut / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(one[k], two[k]) for k in two)
    assert (cut / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    columns = [[line.rsplit(",", 1)[0] for line in (f / "metrics.csv").read_text().splitlines()] for f in (cut, whole)]
    assert columns[0] == columns[1]
    assert len(columns[0]) == 5
    assert not list((cut / "checkpoints").glob(".epoch-*"))
