"""One table in four forms, in each of which a name stays a name."""

from __future__ import annotations

import doctest

from fusionzoo.reporting import table as module
from fusionzoo.reporting.table import Strong, Table

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
