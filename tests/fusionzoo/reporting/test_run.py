from __future__ import annotations

import pytest

from fusionzoo.reporting.pages import page, paragraph
from fusionzoo.reporting.plots import have_plots
from fusionzoo.reporting.table import Table
from fusionzoo.scoring.ceiling import best_reachable


@pytest.mark.parametrize(
    ("modalities", "reader"),
    [
        (("text", "audio", "visual"), "full"),
        (("audio", "text"), "without_visual"),
        (("visual",), "only_visual"),
    ],
)
def test_the_ceiling_is_that_of_the_modalities_used(corpus, modalities, reader):
    expected = corpus.info["ceiling"]["test"][reader]["weighted_f1"]
    assert best_reachable(corpus.info, modalities, "test") == expected


def test_no_ceiling_where_the_data_know_none():
    assert best_reachable({}, ("text", "audio"), "test") is None


def test_everything_from_outside_is_escaped():
    text = page(
        "<script>a</script>", [paragraph("<b>", "warning"), Table(["<i>", "b", "c"], [["<u>", 0.123456, None]]).html()]
    )
    assert not any(tag in text for tag in ("<script>a", "<b>", "<i>", "<u>"))
    assert "<td>0.1235</td><td></td>" in text
    assert '<p class="warning">&lt;b&gt;</p>' in text


def test_reports_do_without_matplotlib(monkeypatch, tmp_path, corpus, make_config):
    import importlib.util

    import fusionzoo

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    assert not have_plots()
    fusionzoo.train(make_config(epochs=1), tmp_path / "r", quiet=True, corpus=corpus)
    assert not (tmp_path / "r" / "curves.png").exists()
    assert "fusionzoo[report]" in (tmp_path / "r" / "report.html").read_text()
