"""The leaderboard shows what is in its folder, to this machine alone, and nothing else."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager

import pytest
from made_comparison import made_run

from fusionzoo.errors import OptionError
from fusionzoo.reporting.board import address_of, file_in, leaderboard, server
from fusionzoo.reporting.rows import Contestant


def run(folder, right, seed=0, selection="dev", sha=None, fusion="concat"):
    """A finished run, and its test score."""
    made_run(folder, Contestant("bc-lstm", fusion), seed, right, selection=selection)
    result = json.loads((folder / "result.json").read_text())
    if sha:
        result["data"]["sha256"] = sha
        (folder / "result.json").write_text(json.dumps(result))
    (folder / "report.html").write_text("<p>the report</p>")
    return result["test"]["weighted_f1"]


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    run(root / "cmp" / "runs" / "bc-lstm__concat__seed0", 0.5)
    run(root / "cmp" / "runs" / "bc-lstm__concat__seed1", 0.6, seed=1)
    run(root / "cmp" / "runs" / "bc-lstm__lmam__seed0", 0.7, fusion="lmam")
    run(root / "flattered", 0.99, selection="test")
    run(root / "other", 0.9, sha="b" * 64)
    (root / "cmp" / "summary.json").write_text("{}")
    (root / "cmp" / "report.html").write_text("<p>all</p>")
    (root / "secret.key").write_text("secret")
    (root / ".hidden.html").write_text("hidden")
    (tmp_path / "outside.html").write_text("outside")
    (root / "way-out.html").symlink_to(tmp_path / "outside.html")
    return root


def test_models_are_ranked_within_their_data_and_those_chosen_on_test_stand_apart(runs):
    (runs / "broken").mkdir()
    (runs / "broken" / "result.json").write_text("{")
    text = leaderboard(runs)
    first, second = text.split("<h2>made (bbbbbbbbbbbb)")
    ranked = first[: first.index("Chosen on the test split")]
    assert ranked.index("bc-lstm + lmam") < ranked.index("bc-lstm + concat")
    seeds = [json.loads((runs / "cmp/runs" / f"bc-lstm__concat__seed{i}/result.json").read_text()) for i in (0, 1)]
    assert f"{sum(r['test']['weighted_f1'] for r in seeds) / 2:.4f}" in ranked  # the mean of two seeds
    assert "flattered" not in ranked
    assert "flattered" in first
    assert "other" in second
    assert '<a href="/cmp/runs/bc-lstm__concat__seed1/report.html">1</a>' in ranked
    assert '<a href="/cmp/report.html">cmp</a>' in text
    assert "Damaged" in text


def test_names_are_text_and_no_markup(tmp_path):
    run(tmp_path / "<b>x", 0.5)
    assert "&lt;b&gt;x" in leaderboard(tmp_path)
    assert "<b>x" not in leaderboard(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.html",
        "/%2e%2e/outside.html",
        "/cmp/..%2f..%2foutside.html",
        "//etc/passwd",
        "/way-out.html",
        "/secret.key",
        "/.hidden.html",
        "/cmp",
        "/cmp/",
        "/nothing.html",
        "/cmp\\report.html",
        "/a%00.html",
        pytest.param("/" + "x" * 5000 + ".html", id="a name that is too long"),
    ],
)
def test_nothing_outside_of_the_folder_and_no_other_file_is_given(path, runs):
    assert file_in(runs.resolve(), path) is None


def test_pages_are_found_by_their_path(runs):
    assert file_in(runs.resolve(), "/cmp/report.html?x=1#y") == (runs / "cmp" / "report.html").resolve()


@contextmanager
def running(folder):
    with server(folder) as board:
        thread = threading.Thread(target=board.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield board
        finally:
            board.shutdown()
            thread.join()


def ask(board, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", board.server_address[1], timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def test_it_answers_this_machine_alone_and_reads_only(runs):
    with running(runs) as board:
        assert board.server_address[0] == "127.0.0.1"
        assert address_of(board) == f"http://127.0.0.1:{board.server_address[1]}/"
        status, body, headers = ask(board, "/")
        assert (status, "bc-lstm + lmam" in body) == (200, True)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert ask(board, "/cmp/report.html")[:2] == (200, "<p>all</p>")
        assert ask(board, "/cmp/report.html", "HEAD")[:2] == (200, "")
        assert ask(board, "/way-out.html")[0] == 404
        for method in ("POST", "PUT", "DELETE"):
            assert ask(board, "/cmp/report.html", method)[0] == 501
        # A page elsewhere whose name was made to lead here (DNS rebinding).
        assert ask(board, "/", Host="evil.example")[0] == 403


def test_what_cannot_be_served_says_so(tmp_path):
    with pytest.raises(OptionError, match="there is no folder"):
        server(tmp_path / "nothing")
    with server(tmp_path) as board, pytest.raises(OptionError, match=r"choose another --port"):
        server(tmp_path, board.server_address[1])
