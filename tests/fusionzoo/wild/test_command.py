"""The command `fusionzoo run`: whose arguments are whose, statuses and messages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fusionzoo.cli import main
from fusionzoo.cli.run import own_arguments, read_widths
from fusionzoo.errors import OptionError

SCRIPTS = Path(__file__).with_name("scripts")
pytestmark = pytest.mark.filterwarnings("ignore::fusionzoo.errors.FusionZooWarning")


def status(*arguments: object) -> object:
    with pytest.raises(SystemExit) as end:
        main(["run", *map(str, arguments)])
    return end.value.code


def test_what_follows_the_scripts_name_is_the_scripts() -> None:
    line = ["run", "--debug", "--fusion", "gmu", "train.py", "--debug", "other.py"]
    assert line[: own_arguments(line)] == ["run", "--debug", "--fusion", "gmu"]
    assert own_arguments(["train", "--debug", "x.py"]) == 3
    assert own_arguments(["run"]) == 1


def test_the_scripts_status_is_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(SCRIPTS / "endings.py", "exit") == 5
    assert status("--fusion", "gmu", SCRIPTS / "endings.py", "words") == "no data"
    assert status("--fusion", "gmu", SCRIPTS / "endings.py", "raise") == 1
    said = capsys.readouterr().err
    assert "the script ended itself (status no data) before a model was called in training" in said
    assert "Traceback (most recent call last):" in said
    assert "session.py" not in said
    assert status(SCRIPTS / "endings.py", "missing") == 1
    assert "the script needs a_package_that_nobody_has" in capsys.readouterr().err


def test_our_errors_are_sentences(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert status(tmp_path / "none.py") == 2
    assert "there is no script" in capsys.readouterr().err
    assert status("--fusion", "gmu", SCRIPTS / "endings.py", "once") == 2
    assert "once only" in capsys.readouterr().err
    # Of an error of the patcher's, what was taken for the model is said too.
    assert status("--fusion", "gmu", "--modalities", "text=words", "--site", "9", SCRIPTS / "folds.py") == 2
    assert "Net was taken for the model" in capsys.readouterr().err
    assert status("--device", "cuda:99", SCRIPTS / "folds.py") == 2
    assert "use --device cpu" in capsys.readouterr().err


def test_cuda_that_is_not_there_is_hinted_at(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("raise RuntimeError('Torch not compiled with CUDA enabled')\n")
    import torch

    assert status(script) == 1
    assert ("fusionzoo run --device cpu" in capsys.readouterr().err) is not torch.cuda.is_available()


def test_the_script_sees_its_own_arguments_only(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.argv)
    line = [
        "run",
        "--fusion",
        "gmu",
        "--option",
        "missing=zero",
        str(SCRIPTS / "endings.py"),
        "trained",
        "--debug",
        "--help",
    ]
    with pytest.raises(SystemExit) as end:
        main(line)
    assert end.value.code in (0, None)
    shown = capsys.readouterr()
    assert "'trained', '--debug', '--help'" in shown.out
    assert "GMU in Net" in shown.err
    assert sys.argv == before


def test_widths() -> None:
    assert read_widths("text=60, audio=30") == {"text": 60, "audio": 30}
    for text in ("text", "text=0", "text=a"):
        with pytest.raises(OptionError, match="--widths"):
            read_widths(text)
