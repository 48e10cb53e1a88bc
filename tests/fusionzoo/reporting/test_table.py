"""One table in four forms, in each of which a name stays a name."""

from __future__ import annotations

import doctest
import sys

import pytest

from fusionzoo.errors import MissingDependency
from fusionzoo.reporting import table as module
from fusionzoo.reporting.table import FILE, PHONE, TERMINAL, Column, Link, Strong, StrongNumber, Table

NASTY = "a|b & <c> 50% \\ \x1b"
TABLE = Table(["name", "F1"], [[NASTY, 0.123456], [Strong("x_y"), None]], ["± says the spread."])


def test_the_examples():
    assert doctest.testmod(module).failed == 0


def test_text_stands_in_columns():
    header, first, second, note = TABLE.text().splitlines()
    assert header.index("F1") == first.index("0.1235")
    assert second == "x_y"
    assert note == "± says the spread."
    assert "\x1b" not in first


def test_markdown():
    lines = TABLE.markdown().splitlines()
    assert lines[1] == "| --- | --- |"
    assert lines[2].startswith(r"| a\|b & \<c\> 50%")
    assert lines[3] == "| **x_y** |  |"
    assert lines[-1] == "± says the spread."


def test_html():
    html = TABLE.html()
    assert "<td>a|b &amp; &lt;c&gt; 50%" in html
    assert "<td>0.1235</td>" in html
    assert "<td><strong>x_y</strong></td><td></td>" in html
    assert '<p class="note">± says the spread.</p>' in html


def test_latex():
    lines = TABLE.latex().splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert lines[4].startswith(r"a|b \& <c> 50\% \textbackslash{}")
    assert lines[4].endswith(r"& 0.1235 \\")
    assert r"\textbf{x\_y} &  \\" in lines
    assert lines[-2:] == [r"\end{tabular}", "% ± says the spread."]


WIDE = Table(
    [
        "name",
        Column("F1", ".2f", about="a <score>"),
        Column("size", ",", narrowest=TERMINAL),
        Column("all", narrowest=FILE),
    ],
    [[Link("a", "#row-0"), StrongNumber(0.5), 12000, "x"], ["b", None, None, "y"]],
)


def test_columns_say_how_they_are_shown_and_where():
    assert WIDE.fitting(TERMINAL).text().splitlines() == ["name  F1    size", "a     0.50  12,000", "b"]
    assert list(WIDE.fitting(PHONE).header) == ["name", "F1"]
    html = WIDE.html(sortable=True)
    assert '<td><a href="#row-0">a</a></td><td><strong>0.50</strong></td><td class="wide">12,000</td>' in html
    assert '<th title="a &lt;score&gt;">F1</th>' in html
    assert '<td class="words wide">x</td>' in html
    assert "| a | **0.50** | 12,000 | x |" in WIDE.markdown()


def test_empty_columns_may_be_left_out():
    table = Table(["name", "p", "F1"], [["a", None, 0], ["b", "", 1]])
    assert table.filled().text().splitlines() == ["name  F1", "a     0", "b     1"]


def test_csv_and_pandas_have_every_digit():
    table = Table(["name", Column("F1", ".2f")], [["a", 0.123456], ["b", None]])
    assert table.csv() == "name,F1\na,0.123456\nb,\n"
    frame = table.to_pandas()
    assert frame["F1"].iloc[0] == 0.123456
    assert frame["F1"].isna().tolist() == [False, True]


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match=r"fusionzoo\[report\]"):
        TABLE.to_pandas()
