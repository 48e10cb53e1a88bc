"""A command that is stopped says how to go on, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusionzoo.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

TRAIN = ["train", "--data", "demo", "--host", "bc-lstm", "--fusion", "gated", "--set", "training.epochs=5000"]
COMPARE = [
    "compare",
    "--data",
    "demo",
    "--hosts",
    "bc-lstm",
    "--fusions",
    "gated,concat",
    "--seeds",
    "2",
    "--jobs",
    "2",
]


@pytest.mark.parametrize("command", [["doctor"], ["plugins"], ["info", "lmam"], ["data", "inspect", "x.npz"]])
def test_ctrl_c_is_told_by_every_command(command: list[str], monkeypatch, capsys):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for place in ("doctor.diagnose", "_registry.registry.rows", "_registry.registry.card", "data.inspection.inspect"):
        monkeypatch.setattr(f"fusionzoo.{place}", stop)
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "fusionzoo: interrupted\n"


def test_other_exits_are_not_taken_for_interruptions(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--no-such-option"])
    assert caught.value.code == 2
    assert "interrupted" not in capsys.readouterr().err


def test_nothing_is_changed_about_signals_on_import_or_afterwards():
    with pytest.raises(SystemExit):
        main(["plugins", "--kind", "recipe"])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def _children(process: subprocess.Popen[str]) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process.pid:
            found.append(int(stat.parent.name))
    return found


def _runs(process: int) -> bool:
    """Whether a process is there and not only waiting to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number", "status", "what"),
    [(TRAIN, 2, 130, "interrupted"), (COMPARE, 15, 143, "interrupted by SIGTERM")],
    ids=["train", "compare"],
)
def test_a_run_that_is_stopped_says_where_it_goes_on(
    tmp_path: Path, command: list[str], number: int, status: int, what: str
):
    folder = tmp_path / "run"
    extra = ["--set", "training.epochs=5000"] if command is COMPARE else []
    process = subprocess.Popen(
        [sys.executable, "-m", "fusionzoo", *command, *extra, "--out", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with SIGINT ignored, these tests perhaps, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(folder.rglob("state.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    children = _children(process) if Path("/proc").exists() else []
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == status, errors
    assert f"fusionzoo: {what}; " in errors
    assert ("the same command goes on" if command is COMPARE else "--resume") in errors
    assert str(folder) in errors
    assert "Traceback" not in errors
    assert (len(children) > 1) == (command is COMPARE) or not children
    deadline = time.monotonic() + 20
    while (left := [c for c in children if _runs(c)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
