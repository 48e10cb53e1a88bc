"""What a message tells somebody to type can be typed."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import fusionzoo
from fusionzoo.cli.app import app

ROOTS = [Path(fusionzoo.__file__).parent]
ROOTS += [Path(__import__(name).__file__).parent for name in ("fusionzoo_plugins", "fusionzoo_adapters")]
#: Options of other programs that messages or docstrings name.
OTHERS = {
    "--split_utterances",
    "--extra-index-url",
    "--index-url",
    "--num_processes",
    "--no-deps",
    "--upgrade",
    "--force-reinstall",
    "--porcelain",
}
OTHERS |= {"--untracked-files", "--local-dir"}


def _commands() -> dict[str, set[str]]:
    """Command -> its options, those of sub-commands as `data inspect`."""
    found: dict[str, set[str]] = {}

    def walk(command: object, words: tuple[str, ...]) -> None:
        for name, sub in getattr(command, "commands", {}).items():
            walk(sub, (*words, name))
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
        found[" ".join(words)] = options | {"--help", "--debug"}

    walk(typer.main.get_command(app), ())
    return found


COMMANDS = _commands()


def _texts() -> Iterator[tuple[str, str]]:
    """(place, text) of every string in the packages; the parts of an f-string are joined by `{}`."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            inner = {id(c) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for c in ast.walk(n) if c is not n}
            for node in ast.walk(tree):
                if id(node) in inner:
                    continue
                if isinstance(node, ast.JoinedStr):
                    text = "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                else:
                    continue
                yield f"{path.relative_to(root.parent)}:{node.lineno}", text


TEXTS = list(_texts())


#: Variables of a page's stylesheet are spelt like options.
_STYLE = re.compile(r"--[\w-]+:|var\(--[\w-]+\)")


def test_every_option_that_a_text_names_exists():
    every = set().union(*COMMANDS.values()) | OTHERS
    wrong = [
        f"{place}: {option}"
        for place, text in TEXTS
        for option in re.findall(r"(?<![\w/-])--[a-z][a-z0-9_-]*[a-z0-9]", _STYLE.sub("", text))
        if option not in every
    ]
    assert wrong == []


def test_every_command_that_a_text_names_exists_and_takes_its_options():
    wrong = []
    for place, text in TEXTS:
        for line in re.findall(r"`fusionzoo ([a-z][^`]*)`", text):
            words = line.split()
            name = " ".join(words[:2]) if words[0] == "data" else words[0]
            if name not in COMMANDS:
                wrong.append(f"{place}: fusionzoo {name}")
                continue
            options = {w for w in words if re.fullmatch(r"--[a-z][a-z-]+", w)}
            wrong += [f"{place}: fusionzoo {name} {o}" for o in options - COMMANDS[name]]
    assert wrong == []


def test_allow_missing_is_an_option_where_its_argument_is_one():
    from fusionzoo.experiments.saved_runs import evaluate, predict

    for function in (evaluate, predict):
        assert "allow_missing" in inspect.signature(function).parameters
        assert "--allow-missing" in COMMANDS[function.__name__]


@pytest.mark.parametrize("name", [n for n in COMMANDS if n and n != "data"])
def test_every_command_has_words_for_its_options(name: str):
    command = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]  # type: ignore[attr-defined]
    assert command.help
    assert [p.name for p in command.params if p.name not in ("help",) and not getattr(p, "help", None)] == []


def test_the_training_keys_that_messages_name_exist():
    from fusionzoo.runs.config import RunConfig, flatten

    known = set(flatten(RunConfig().to_dict()))
    wrong = [
        f"{place}: {key}"
        for place, text in TEXTS
        for key in re.findall(r"(?<![\w./-])(training\.[a-z_]+)(?:=|\b)(?!\.|\()", text)
        if key not in known and not re.search(r"\.(py|npz|json|yaml|csv|pkl)\b", key)
    ]
    assert wrong == []
