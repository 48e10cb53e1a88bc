"""The page of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._file_schemas import RecipeFacts, ResultFile
from fusionzoo._files import write_bytes, write_text
from fusionzoo.reporting import charts, plots
from fusionzoo.reporting.curves import training_curves
from fusionzoo.reporting.origin import origin_text, read_environment, versions_text
from fusionzoo.reporting.pages import (
    TEST_SELECTED,
    WITHOUT_PICTURES,
    code,
    columns,
    details,
    heading,
    page,
    paragraph,
    warning,
)
from fusionzoo.reporting.table import Table
from fusionzoo.runs.config import WITHOUT_FUSION, model_title
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring.ceiling import ceiling_of, ceiling_readers
from fusionzoo.scoring.metrics import LOG_LOSS, MAIN, METRICS, short_name
from fusionzoo.scoring.published import beside, recipe_name
from fusionzoo.scoring.regression import SHORT

if TYPE_CHECKING:
    from fusionzoo._file_schemas import Scores
    from fusionzoo.reporting.plots import History
    from fusionzoo.runs.config import RunConfig


def write_run_report(folder: Path, config: RunConfig, history: History, result: ResultFile) -> None:
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
    final = next((s for s in ("test", "dev") if s in scored), None)
    info = result["data"].get("info", {})
    parts = [paragraph(_sentence(result), "lede"), paragraph(_in_words(result), "note")]
    parts += [warning(TEST_SELECTED)] if result["selection"] == "test" else []
    parts += [warning(leak) for leak in info.get("leaks", [])]
    if recipe := result.get("recipe"):
        parts += published_part(recipe, [("here", result["test"] or result["dev"])])
    parts += [_scores(scored), *_ceiling(info, list(scored)), *_classes(scored, final)]
    parts += [heading("Training"), training_curves([(history, result)])]
    if plots.have_plots():
        write_bytes(folder / "curves.png", plots.curves(history, result))
        if final:
            write_bytes(folder / "confusion.png", plots.confusion(scored[final], f"confusion on {final}"))
    else:
        parts.append(paragraph(WITHOUT_PICTURES, "note"))
    parts += [heading("How this was made"), code("Configuration", config.to_yaml())]
    environment = read_environment(folder)
    parts.append(code("Command and data", origin_text(environment.get("command", []), [result])))
    parts.append(code("Versions", versions_text(environment.get("packages", {}))))
    write_text(folder / "report.html", page(model_title(result["host"], result["fusion"]), parts))


def _sentence(result: ResultFile) -> str:
    """The outcome first."""
    short = METRICS[MAIN].short
    shown = [f"{short} {scores[MAIN]:.3f} on {split}" for split in ("test", "dev") if (scores := result[split])]
    if not shown:
        return f"{model_title(result['host'], result['fusion'])} was trained; nothing it could be scored on has labels."
    never = [n for split in ("test", "dev") if (scores := result[split]) for n in scores["never_predicted"]]
    weak = f" It never gives {', '.join(dict.fromkeys(never))}." if never else ""
    return f"{model_title(result['host'], result['fusion'])} reaches {', '.join(shown)}, by one seed.{weak}"


def _in_words(result: ResultFile) -> str:
    fusion = WITHOUT_FUSION if result["fusion"] == NO_FUSION else f"fusion {result['fusion']}"
    return (
        f"Host {result['host']} (placement {result['placement']}), {fusion}, seed {result['seed']}; "
        f"epoch {result['epoch']} of {result['epochs']} chosen by {short_name(result['metric'])} on the "
        f"{result['selection']} split; {result['parameters']:,} parameters; {result['seconds']:.1f} s on {result['device']}; "
        f"data {result['data']['name']}."
    )


def _scores(scored: Mapping[str, Scores]) -> str:
    header = ["split", "utterances", *(m.short for m in METRICS.values()), "log loss"]
    rows = []
    for split, scores in scored.items():
        shown = [metric.show(scores.get(name)) for name, metric in METRICS.items()]  # type: ignore[arg-type]
        rows.append([split, scores["utterances"], *shown, scores.get(LOG_LOSS)])
    sentiment = {s: r for s, scores in scored.items() if (r := scores.get("regression"))}
    of_scores = Table(["split", *SHORT.values()], [[s, *(r.get(k) for k in SHORT)] for s, r in sentiment.items()])
    return Table(header, rows).html() + (of_scores.html() if sentiment else "")


def _ceiling(info: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    ceiling, readers = ceiling_of(info), ceiling_readers(info, splits)
    if not readers:
        return []
    rows = [[r, *(ceiling.get(s, {}).get(r, {}).get(MAIN) for s in splits)] for r in readers]
    words = f"{METRICS[MAIN].short} of optimal readers of these data: of everything, and without one kind of evidence."
    return [heading("Best reachable"), paragraph(words, "note"), Table(["reader", *splits], rows).html()]


def _classes(scored: Mapping[str, Scores], final: str | None) -> list[str]:
    """Of the last split what every class gets; of the others behind what opens."""
    parts = []
    for split, scores in scored.items():
        if never := scores["never_predicted"]:
            parts.append(paragraph(f"Never predicted on {split}: {', '.join(never)}. Their F1 is zero.", "note"))
    for split, scores in reversed(list(scored.items())):
        classes = {name: v["f1"] for name, v in scores["per_class"].items()}
        rows = [[n, v["precision"], v["recall"], v["f1"], v["support"]] for n, v in scores["per_class"].items()]
        table = Table(["class", "precision", "recall", "F1", "support"], rows).html(sortable=True)
        matrix = charts.confusion(scores["confusion"], list(classes))
        shown = columns(
            [
                heading(f"F1 of every class on {split}", 3) + charts.bars(classes) + table,
                heading(f"Confusion on {split}", 3) + matrix,
            ]
        )
        parts.append(shown if split == final else details(f"<b>Classes and confusion on {split}</b>", [shown]))
    return [heading("Classes"), *parts] if parts else []


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
