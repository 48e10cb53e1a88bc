"""The command line. `main` turns errors into sentences; the commands live in `fusionzoo.cli.app`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `fusionzoo` command.

    Exit status: 0 done; 2 refused (wrong usage, options, data, names); 1 failed; 130 interrupted (143 by SIGTERM). `--debug`, anywhere on
    the line, or `FUSIONZOO_DEBUG=1`, shows the traceback.
    """
    from fusionzoo.cli.app import app
    from fusionzoo.cli.interrupts import from_interrupt, interrupted, sigterm_as_interrupt
    from fusionzoo.cli.run import own_arguments
    from fusionzoo.errors import FusionZooError

    arguments = list(sys.argv[1:] if argv is None else argv)
    ours = own_arguments(arguments)
    debug = "--debug" in arguments[:ours] or os.environ.get("FUSIONZOO_DEBUG", "") not in ("", "0")
    arguments = [a for a in arguments[:ours] if a != "--debug"] + arguments[ours:]

    try:
        with sigterm_as_interrupt(), _plain_warnings():
            app(args=arguments, prog_name="fusionzoo", standalone_mode=True)
    except FusionZooError as error:
        if debug:
            raise
        _say(f"{error}")
        sys.exit(2)
    except OSError as error:
        if debug:
            raise
        _say(f"{error.strerror or type(error).__name__}: {error.filename or error}")
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as error:
        # typer turns an interruption into an exit of its own, without a word.
        if not from_interrupt(error):
            raise
        if debug and isinstance(error, KeyboardInterrupt):
            raise
        message, status = interrupted()
        _say(message)
        sys.exit(status)
    except Exception as error:
        if debug:
            raise
        _say(f"this should not happen: {type(error).__name__}: {error}\nRun it again with --debug to see where.")
        sys.exit(1)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Our warnings as a sentence, without the line of code that gave them."""
    from fusionzoo.errors import FusionZooWarning

    show = warnings.showwarning

    def plain(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, FusionZooWarning):
            _say(f"warning: {message}")
        else:
            show(message, category, *rest, **more)

    warnings.showwarning = plain
    try:
        yield
    finally:
        warnings.showwarning = show


def _say(message: str) -> None:
    from fusionzoo._text import visible

    sys.stdout.flush()
    print(f"fusionzoo: {visible(message, lines=True)}", file=sys.stderr)
