"""How long work shows itself: lines where there is no terminal, a bar with the time left where there is one."""

from __future__ import annotations

import io
import sys

import pytest

from fusionzoo._progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(bar: Bar) -> None:
    bar.start("training", 4, 1)
    bar.to(2, "half")
    bar.advance(1)
    bar.line("one \x1b[31mline")


@pytest.mark.parametrize(("enabled", "said"), [(True, "one \\x1b[31mline\n"), (False, "")])
def test_elsewhere_there_are_lines_alone(enabled, said, capsys):
    with Bar(enabled, "runs") as bar:
        work(bar)
        assert (bar.on_terminal, bar.completed) == (False, 0.0)
    assert capsys.readouterr().err == said


def test_a_terminal_has_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar(True, "runs", digits=1) as bar:
        work(bar)
        assert (bar.on_terminal, bar.completed) == (True, 3.0)
    for words in ("training", "3.0/4 runs", "half", "one \\x1b[31mline"):
        assert words in terminal.getvalue()
    with Bar(True, "runs", lines=True) as bar:  # where what is counted has a bar of its own
        assert not bar.on_terminal
