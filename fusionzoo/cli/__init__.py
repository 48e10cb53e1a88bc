"""The command line. `main` turns errors into sentences; the commands live in `fusionzoo.cli.app`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `fusionzoo` command.

    Exit status: 0 done; 2 refused (wrong usage, options, data, names); 1 failed; 130 interrupted. `--debug`, anywhere on
    the line, or `FUSIONZOO_DEBUG=1`, shows the traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("FUSIONZOO_DEBUG", "") not in ("", "0")
    arguments = [a for a in arguments if a != "--debug"]

    from fusionzoo.cli.app import app
    from fusionzoo.errors import FusionZooError

    try:
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
    except KeyboardInterrupt:
        _say("interrupted; a training run goes on with --resume")
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        _say(f"this should not happen: {type(error).__name__}: {error}\nRun it again with --debug to see where.")
        sys.exit(1)


def _say(message: str) -> None:
    sys.stdout.flush()
    print(f"fusionzoo: {message}", file=sys.stderr)
