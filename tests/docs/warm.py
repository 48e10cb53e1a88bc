"""`fusionzoo` commands as forks of one process that has imported what they need, which is most of what a short one takes.

python warm.py SOCKET            serves
ask(SOCKET, ["plugins"])         runs a command here, with these streams and this environment; its exit status
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence

WARM = ("accelerate", "matplotlib.pyplot", "scipy.stats", "sklearn.metrics", "torch._dynamo", "torch_geometric.nn")


def ask(path: str, arguments: Sequence[str]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = {"arguments": list(arguments), "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        status = connection.recv(1)
    return status[0] if status else 1  # a process that died without a word


def serve(path: str) -> None:
    for name in WARM:
        importlib.import_module(name)
    import fusionzoo

    for kind in ("fusion", "host"):
        for name in fusionzoo.names(kind):
            fusionzoo.get(name, kind=kind)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    from fusionzoo.cli import main

    status = 1
    try:
        request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        given = json.loads(request)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(given["folder"])
        os.environ.clear()
        os.environ.update(given["environment"])
        sys.argv = ["fusionzoo", *given["arguments"]]
        main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status & 255]))
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
