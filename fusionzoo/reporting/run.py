"""The page of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._file_schemas import RecipeFacts, ResultFile
from fusionzoo._files import write_bytes, write_text
from fusionzoo.reporting import plots
from fusionzoo.reporting.pages import TEST_SELECTED, code, image, page, paragraph, warning
from fusionzoo.reporting.table import Table
from fusionzoo.runs.config import WITHOUT_FUSION, model_title
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring.ceiling import ceiling_of, ceiling_readers
from fusionzoo.scoring.metrics import LOG_LOSS, MAIN, METRICS, short_name
from fusionzoo.scoring.published import beside, recipe_name

if TYPE_CHECKING:
    from fusionzoo._file_schemas import Scores
    from fusionzoo.runs.config import RunConfig


def write_run_report(folder: Path, config: RunConfig, history: Sequence[Mapping[str, Any]], result: ResultFile) -> None:
    """`report.html` of a run, with `curves.png` and `confusion.png` beside it where matplotlib is installed.

    Parameters
    ----------
    folder : the run folder.
    config : as it was in force.
    history : the rows of `metrics.csv`.
    result : the contents of `result.json`.
    """
    scored: dict[str, Scores] = {}
    for split in ("dev", "test"):
        if scores := result[split]:
            scored[split] = scores
    info = result["data"].get("info", {})
    parts = [warning(TEST_SELECTED)] if result["selection"] == "test" else []
    parts += [warning(leak) for leak in info.get("leaks", [])]
    if recipe := result.get("recipe"):
        parts += published_part(recipe, [("here", result["test"] or result["dev"])])
    parts += [_in_words(result), _scores(scored), *_ceiling(info, list(scored)), *_classes(scored)]
    parts += _plots(folder, history, result, scored)
    parts.append(code("Configuration", config.to_yaml()))
    parts.append(paragraph(f"Data {result['data']['name']}, SHA-256 {result['data']['sha256']}.", "note"))
    write_text(folder / "report.html", page(model_title(result["host"], result["fusion"]), parts))


def _in_words(result: ResultFile) -> str:
    fusion = WITHOUT_FUSION if result["fusion"] == NO_FUSION else f"fusion {result['fusion']}"
    return paragraph(
        f"Host {result['host']} (placement {result['placement']}), {fusion}, seed {result['seed']}; "
        f"epoch {result['epoch']} of {result['epochs']} chosen by {short_name(result['metric'])} on the "
        f"{result['selection']} split; {result['parameters']:,} parameters; {result['seconds']:.1f} s on {result['device']}."
    )


def _scores(scored: Mapping[str, Scores]) -> str:
    header = ["split", "utterances", *(m.short for m in METRICS.values()), "log loss"]
    rows = []
    for split, scores in scored.items():
        shown = [metric.show(scores.get(name)) for name, metric in METRICS.items()]  # type: ignore[arg-type]
        rows.append([split, scores["utterances"], *shown, scores.get(LOG_LOSS)])
    return Table(header, rows).html()


def _ceiling(info: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    ceiling, readers = ceiling_of(info), ceiling_readers(info, splits)
    if not readers:
        return []
    rows = [[r, *(ceiling.get(s, {}).get(r, {}).get(MAIN) for s in splits)] for r in readers]
    words = f"{METRICS[MAIN].short} of optimal readers of these data: of everything, and without one kind of evidence."
    return ["<h2>Best reachable</h2>", paragraph(words, "note"), Table(["reader", *splits], rows).html()]


def _classes(scored: Mapping[str, Scores]) -> list[str]:
    parts = []
    for split, scores in scored.items():
        if never := scores["never_predicted"]:
            parts.append(paragraph(f"Never predicted on {split}: {', '.join(never)}. Their F1 is zero.", "note"))
    for split, scores in reversed(list(scored.items())):
        rows = [[n, v["precision"], v["recall"], v["f1"], v["support"]] for n, v in scores["per_class"].items()]
        table = Table(["class", "precision", "recall", "F1", "support"], rows)
        parts += [f"<h2>Classes on {split}</h2>", table.html()]
    return parts


def _plots(
    folder: Path, history: Sequence[Mapping[str, Any]], result: ResultFile, scored: Mapping[str, Scores]
) -> list[str]:
    final = next((s for s in ("test", "dev") if s in scored), None)
    parts = []
    if plots.have_plots():
        curves = plots.curves(history, result)
        write_bytes(folder / "curves.png", curves)
        parts += ["<h2>Training</h2>", image(curves, "training curves")]
        if final:
            confusion = plots.confusion(scored[final], f"confusion on {final}")
            write_bytes(folder / "confusion.png", confusion)
            parts += ["<h2>Confusion</h2>", image(confusion, f"confusion matrix on {final}")]
    else:
        parts.append(paragraph('Plots need matplotlib: pip install "fusionzoo[report]".', "note"))
    if final:
        names = list(scored[final]["per_class"])
        rows = [[n, *r] for n, r in zip(names, scored[final]["confusion"], strict=True)]
        parts.append(Table([f"{final}: true \\ predicted", *names], rows).html())
    return parts


def published_part(recipe: RecipeFacts, ours: Sequence[tuple[str, Mapping[str, Any] | None]]) -> list[str]:
    """What a recipe's paper reports and how, beside our scores.

    Parameters
    ----------
    recipe : see `Recipe.facts`.
    ours : each column's name and its scores.
    """
    published = recipe["published"]
    parts = [paragraph(f"Recipe {recipe_name(recipe)}, protocol {recipe['protocol']}.")]
    columns = [(label, beside(recipe, scores)) for label, scores in ours]
    if columns and columns[0][1]:
        rows = []
        for i, (metric, number, _) in enumerate(columns[0][1]):
            mine = ["" if (o := r[i][2]) is None else f"{o:.2f}" for _, r in columns]
            rows.append([metric, f"{number:.2f}", *mine])
        parts.append(Table(["percent", "published", *(label for label, _ in columns)], rows).html())
    else:
        parts.append(paragraph("No published number is known.", "note"))
    words = [f"{k}: {' '.join(str(said).split())}." for k in ("protocol", "flaw") if (said := published.get(k))]
    return [*parts, *(paragraph(f"Published {w}", "note") for w in words)]
