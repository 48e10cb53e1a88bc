"""A clean environment in which packages are really built and installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


class Environment:
    """A virtual environment that has the packages of the running one, fusionzoo among them, and its own installs."""

    def __init__(self, folder: Path):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        site = subprocess.run(
            [self.bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        # addsitedir rather than a plain path, so that editable installs of the running environment count too.
        parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        line = "; ".join(["import site", *(f"site.addsitedir({p!r})" for p in sorted(parents))])
        (Path(site) / "running.pth").write_text(f"{line}\n")
        for name in ("fusionzoo", "pytest"):
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec "{self.bin / "python"}" -m {name} "$@"\n')
            script.chmod(0o755)
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("FUSIONZOO_", "PYTEST_", "PIP_"))}
        self.env = keep | {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(folder),
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_DEPS": "1",  # what it depends on is there
        }
        if importlib.util.find_spec("hatchling") is not None:
            # "false" is how pip spells --no-build-isolation in the environment.
            self.env |= {"PIP_NO_BUILD_ISOLATION": "false", "PIP_NO_INDEX": "1"}

    def __call__(self, command: str | list[str], cwd: Path | None = None) -> str:
        """Run a command, a string through the shell; its output. Fails loudly."""
        done = subprocess.run(
            command, shell=isinstance(command, str), cwd=cwd, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done.stdout


@pytest.fixture
def environment(tmp_path) -> Environment:
    return Environment(tmp_path / "env")
