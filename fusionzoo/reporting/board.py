"""The leaderboard: all runs and comparisons below a folder on one page, and the server that shows it on this machine alone.

Models are compared within one data set only, told apart by its hash; runs whose epoch was chosen on the test split stand
below all others, in so many words. The page is made anew whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.reporting.pages import details, heading, links, page, paragraph, warning
from fusionzoo.reporting.table import Column, Link, Table
from fusionzoo.runs.folder import read_result
from fusionzoo.runs.measured import Measured, by_model, find_runs, holding
from fusionzoo.scoring.metrics import METRICS

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile

#: What is served, by the ending of its name; nothing else is.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".tex": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
# Pages bring their own style, script and pictures and talk to nobody, whoever wrote them.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOOPBACK = "127.0.0.1"


# -- the page ---------------------------------------------------------------------------------------------------------


def leaderboard(folder: Path) -> str:
    """The page of all runs and comparisons in and below a folder, with links to their pages."""
    runs: list[tuple[Path, ResultFile]] = []
    damaged: list[str] = []
    for run in find_runs(folder):
        try:
            if (result := read_result(run)) is not None:
                runs.append((run, result))
        except FusionZooError as error:
            damaged.append(str(error))
    parts = [paragraph(f"{len(runs)} finished runs in {folder}.")]
    data: dict[tuple[str, str], list[tuple[Path, ResultFile]]] = {}
    for run, result in runs:
        data.setdefault((result["data"]["name"], result["data"]["sha256"]), []).append((run, result))
    for (name, sha), mine in sorted(data.items()):
        parts.append(heading(f"{name} ({sha[:12]})"))
        honest = [r for r in mine if r[1]["selection"] != "test"]
        if honest:
            parts.append(_table(by_model(honest), folder))
        if len(honest) < len(mine):
            parts.append(
                warning("Chosen on the test split: these scores are too high and do not compare with the others.")
            )
            parts.append(_table(by_model(r for r in mine if r not in honest), folder))
    parts += _comparisons(folder)
    parts += [warning(f"Damaged: {why}") for why in damaged]
    return page("Leaderboard", parts)


def _table(models: Iterable[Measured], folder: Path) -> str:
    ranked = sorted(models, key=lambda m: -1.0 if m.mean is None else m.mean, reverse=True)
    head = [
        "model",
        *(Column(f"test {m.short}", m.format) for m in METRICS.values()),
        "seeds",
        "parameters",
        "seconds",
        "",
    ]
    rows, runs = [], []
    for model in ranked:
        (first, result), *_ = model.runs
        scores = [model.mean_of(name) for name in METRICS]
        about = [len(model.runs), f"{result['parameters']:,}", f"{result['seconds']:.0f}"]
        name = _link(first / "report.html", folder, model.name)
        rows.append([name, *scores, *about, _link(first / "diagnosis.html", folder, "diagnosis", otherwise="")])
        seeds = [(str(r["seed"]), _address(run / "report.html", folder)) for run, r in model.runs]
        if len(seeds) > 1:
            runs += [heading(model.name, 3), links([(seed, to) for seed, to in seeds if to])]
    every = [details("<b>Every run, by its seed</b>", runs)] if runs else []
    return "\n".join([Table(head, rows).html(sortable=True), *every])


def _comparisons(folder: Path) -> list[str]:
    pairs = []
    for found in holding("summary.json", folder):
        name = found.relative_to(folder).as_posix() if found != folder else folder.resolve().name
        pages = {name: found / "report.html", f"{name}: diagnosis": found / "diagnosis.html"}
        pairs += [(text, to) for text, page in pages.items() if (to := _address(page, folder))]
    return [heading("Comparisons and folds"), links(pairs)] if pairs else []


def _link(file: Path, root: Path, text: str, otherwise: str | None = None) -> str:
    """Text that leads to a page; where that page is not there, something else, or the text alone."""
    to = _address(file, root)
    return Link(text, to) if to else text if otherwise is None else otherwise


def _address(file: Path, root: Path) -> str:
    """Of a page on the board; empty where it is not there."""
    return "/" + quote(file.relative_to(root).as_posix()) if file.is_file() else ""


# -- the server -------------------------------------------------------------------------------------------------------


def server(folder: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of a folder's leaderboard and pages; call `serve_forever`.

    It listens on this machine's loopback address alone, reads and never writes, and gives nothing that lies outside the
    folder, also not by a link. A page of another origin that names this address is refused by its Host.

    Parameters
    ----------
    folder : what is shown.
    port : 0 for a free one.

    Raises
    ------
    OptionError : there is no such folder, or the port is taken.
    """
    root = Path(folder)
    if not root.is_dir():
        raise OptionError(f"there is no folder {str(folder)!r}; give one that holds runs, such as fusionzoo-runs")
    try:
        return ThreadingHTTPServer((_LOOPBACK, port), partial(_Handler, root=root.resolve()))
    except (OSError, OverflowError) as error:
        raise OptionError(f"port {port} cannot be used ({error}); choose another --port, or 0 for a free one") from None


def address_of(board: ThreadingHTTPServer) -> str:
    """Where the server is to be found."""
    return f"http://{_LOOPBACK}:{board.server_address[1]}/"


def file_in(root: Path, path: str) -> Path | None:
    """The file that a request's path stands for; None where that is nothing to be served.

    Parameters
    ----------
    root : the folder, without links in its path.
    path : as it came, escaped.
    """
    asked = unquote(urlsplit(path).path)
    names = asked.strip("/").split("/")
    if "\0" in asked or "\\" in asked or any(n in ("", "..") or n.startswith(".") for n in names):
        return None
    try:
        target = root.joinpath(*names).resolve()
        inside = target.is_relative_to(root) and target.is_file()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that is too long
        return None
    return target if inside and target.suffix.lower() in TYPES else None


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server_version = "fusionzoo"
    sys_version = ""
    timeout = 30

    def __init__(self, *arguments: object, root: Path):
        self.root = root
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        port = self.server.server_address[1]  # type: ignore[index]
        if self.headers.get("Host") not in (f"{_LOOPBACK}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.FORBIDDEN, "this server answers to its own address only")
            return
        if urlsplit(self.path).path == "/":
            self._send(leaderboard(self.root).encode("utf-8", "backslashreplace"), TYPES[".html"], with_body)
            return
        target = file_in(self.root, self.path)
        if target is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._send(target.read_bytes(), TYPES[target.suffix.lower()], with_body)

    def _send(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal shows the address."""
