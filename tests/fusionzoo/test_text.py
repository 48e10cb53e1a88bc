"""Names that come from files, shown: nothing in them steers a terminal, a table, a page or a plot."""

from __future__ import annotations

import csv
import io
import json

import pytest

from fusionzoo._csv import csv_text, read_csv
from fusionzoo._text import brief, json_text, markdown, markup, unmathematical, visible

STEERING = {
    "escape": ("\x1b[31mred", r"\x1b[31mred"),
    "c1": ("\x9b31mred", r"\x9b31mred"),
    "delete": ("a\x7f", r"a\x7f"),
    "bell": ("a\x07", r"a\x07"),
    "line": ("a\nb", r"a\nb"),
    "return": ("good\rbad", r"good\rbad"),
    "tab": ("a\tb", r"a\tb"),
    "override": ("abc\u202edcba", r"abc\u202edcba"),
    "isolate": ("\u2066a\u2069", r"\u2066a\u2069"),
    "separator": ("a\u2028b", r"a\u2028b"),
    "invisible": ("a\u200bb", r"a\u200bb"),
    "mark": ("\ufeffa", r"\ufeffa"),
    "surrogate": ("a\udc80", r"a\udc80"),
    "tag": ("a\U000e0041", r"a\U000e0041"),
}


@pytest.mark.parametrize("name", STEERING)
def test_what_steers_is_spelt_out(name: str):
    given, shown = STEERING[name]
    assert visible(given) == shown
    assert visible(given).isprintable()
    assert json.loads(json_text({given: 1})) == {given: 1}
    assert visible(json_text(given), lines=True) == json_text(given)


@pytest.mark.parametrize("name", ["joy", "Freude, schöner", "高兴", "سعيد", "می‌خواهم", "[/b]joy", "a  b", "🙂"])
def test_ordinary_names_stay(name: str):
    assert visible(name) == name


def test_lines_stay_where_text_has_lines():
    assert visible("a\tb\n\x1bc", lines=True) == "a\tb\n\\x1bc"


def test_tables_pages_and_plots():
    assert markdown("a|b*c`[d](e)\n<f>") == r"a\|b\*c\`\[d\](e)\\n\<f\>"
    assert markup('<b>"&\x1b') == r"&lt;b&gt;&quot;&amp;\x1b"
    assert unmathematical("$\\frac{1}") == "\\$\\frac{1}"
    assert len(brief(list(range(10**5)))) < 100


CELLS = [
    *(
        "=1+1",
        "+1",
        "-x",
        "@a",
        "\t=1",
        "\rx",
        "\nx",
        " =1",
        "'=1",
        "''=1",
        "'plain",
        "it's",
        "",
        "a,b",
        'say "x"',
        "＝1",
    ),
    *("-1.5", "+2e-3", "-", "--", "-1.5.2", "=", "1=1", "a\r\nb", "joy"),
]


def test_cells_are_harmless_in_a_spreadsheet_and_come_back(tmp_path):
    text = csv_text(["name", "=x"], [[c, 1] for c in CELLS])
    (tmp_path / "t.csv").write_bytes(text.encode())
    assert [r["name"] for r in read_csv(tmp_path / "t.csv")] == CELLS
    assert list(read_csv(tmp_path / "t.csv")[0]) == ["name", "=x"]
    raw = [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]
    for cell in raw:
        assert cell.lstrip(" ")[:1] not in ("=", "@", "\t", "\r", "＝")
        if cell[:1] in ("+", "-"):
            float(cell)


def test_numbers_stay_numbers():
    assert csv_text(["a"], [[-1.5], [-2], ["-1.5"], ["-1e-05"], [None]]) == 'a\n-1.5\n-2\n-1.5\n-1e-05\n""\n'
