"""Reports: self-contained HTML pages, and plots where matplotlib is installed."""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._file_schemas import Ceiling
from fusionzoo._schema import check
from fusionzoo._text import markup, unmathematical
from fusionzoo.runs.config import WITHOUT_FUSION, model_title
from fusionzoo.runs.files import write_bytes, write_text
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring.metrics import SHORT_NAMES
from fusionzoo.scoring.published import beside

if TYPE_CHECKING:
    from fusionzoo.runs.config import RunConfig

NAMES = {**SHORT_NAMES, "log_loss": "log loss"}

TEST_SELECTED = (
    "Selected on the test split. The epoch was chosen by its test score, as many published numbers were. "
    "The test score is therefore too high, by an unknown amount, and does not compare with runs selected on dev."
)

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .7rem;border-bottom:1px solid #d8dee4;text-align:right}
th:first-child,td:first-child{text-align:left}th{border-bottom:2px solid #8c959f}
.warning{color:#fff;background:#b42318;padding:.7rem 1rem;border-radius:4px;font-weight:600}
.note{color:#57606a}img{max-width:100%}pre{background:#f6f8fa;padding:1rem;overflow-x:auto}
"""


def have_plots() -> bool:
    """Whether matplotlib is installed (the extra `report`)."""
    return importlib.util.find_spec("matplotlib") is not None


def figure(width: float = 7.0, height: float = 3.6, columns: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure that needs no display and leaves pyplot's state alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(1, columns)


def png(fig: Any) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML page."""
    name = markup(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{name}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table; floats with four digits, everything escaped."""

    def cell(value: Any) -> str:
        return markup("" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value))

    head = "".join(f"<th>{cell(h)}</th>" for h in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell(v)}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def image(data: bytes, alt: str) -> str:
    """A PNG inside the page."""
    return f'<img alt="{markup(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, optionally of class `warning` or `note`."""
    return f'<p class="{kind}">{markup(text)}</p>' if kind else f"<p>{markup(text)}</p>"


def write_run_report(
    folder: Path, config: RunConfig, history: Sequence[Mapping[str, Any]], result: Mapping[str, Any]
) -> None:
    """`report.html` of a run, with `curves.png` and `confusion.png` beside it where matplotlib is installed."""
    parts: list[str] = []
    if result["selection"] == "test":
        parts.append(paragraph(TEST_SELECTED, "warning"))
    parts += [paragraph(leak, "warning") for leak in result["data"]["info"].get("leaks", [])]
    scored = {s: result[s] for s in ("dev", "test") if result[s]}
    if result.get("recipe"):
        parts += published_part(result["recipe"], [("here", result["test"] or result["dev"])])
    parts.append(
        paragraph(
            f"Host {result['host']} (placement {result['placement']}), {_fusion(result)}, seed {result['seed']}; "
            f"epoch {result['epoch']} of {result['epochs']} chosen by {NAMES[result['metric']]} on the "
            f"{result['selection']} split; {result['parameters']:,} parameters; {result['seconds']:.1f} s on {result['device']}."
        )
    )
    parts.append(
        table(
            ["split", "utterances", *NAMES.values()],
            [[s, r["utterances"], *(r[k] for k in NAMES)] for s, r in scored.items()],
        )
    )
    parts += ceiling_part(result["data"]["info"], list(scored))
    for split, scores in scored.items():
        never = scores["never_predicted"]
        if never:
            parts.append(paragraph(f"Never predicted on {split}: {', '.join(never)}. Their F1 is zero.", "note"))
    for split, scores in reversed(scored.items()):
        rows = [[n, v["precision"], v["recall"], v["f1"], v["support"]] for n, v in scores["per_class"].items()]
        parts += [f"<h2>Classes on {split}</h2>", table(["class", "precision", "recall", "F1", "support"], rows)]
    final = next((s for s in ("test", "dev") if s in scored), None)
    if have_plots():
        curves = _curves(history, result)
        write_bytes(folder / "curves.png", curves)
        parts += ["<h2>Training</h2>", image(curves, "training curves")]
        if final:
            confusion = _confusion(scored[final], f"confusion on {final}")
            write_bytes(folder / "confusion.png", confusion)
            parts += ["<h2>Confusion</h2>", image(confusion, f"confusion matrix on {final}")]
    else:
        parts.append(paragraph('Plots need matplotlib: pip install "fusionzoo[report]".', "note"))
    if final:
        names = list(scored[final]["per_class"])
        rows = [[n, *r] for n, r in zip(names, scored[final]["confusion"], strict=True)]
        parts.append(table([f"{final}: true \\ predicted", *names], rows))
    parts += ["<h2>Configuration</h2>", f"<pre>{markup(config.to_yaml())}</pre>"]
    parts.append(paragraph(f"Data {result['data']['name']}, SHA-256 {result['data']['sha256']}.", "note"))
    write_text(folder / "report.html", page(model_title(result["host"], result["fusion"]), parts))


def _fusion(result: Mapping[str, Any]) -> str:
    return WITHOUT_FUSION if result["fusion"] == NO_FUSION else f"fusion {result['fusion']}"


def published_part(recipe: Mapping[str, Any], ours: Sequence[tuple[str, Mapping[str, Any] | None]]) -> list[str]:
    """What a recipe's paper reports and how, beside our scores, each with its column's name."""
    name = recipe["name"] + (f" ({recipe['variant']})" if recipe.get("variant") else "")
    published = recipe["published"]
    parts = [paragraph(f"Recipe {name}, protocol {recipe['protocol']}.")]
    columns = [(label, beside(recipe, scores)) for label, scores in ours]
    if columns and columns[0][1]:
        rows = []
        for i, (metric, number, _) in enumerate(columns[0][1]):
            mine = ["" if r[i][2] is None else f"{r[i][2]:.2f}" for _, r in columns]
            rows.append([metric, f"{number:.2f}", *mine])
        parts.append(table(["percent", "published", *(label for label, _ in columns)], rows))
    else:
        parts.append(paragraph("No published number is known.", "note"))
    words = [f"{k}: {' '.join(str(published[k]).split())}." for k in ("protocol", "flaw") if published.get(k)]
    return [*parts, *(paragraph(f"Published {w}", "note") for w in words)]


def ceiling_part(info: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """What optimal readers reach on generated data, where the corpus knows it."""
    ceiling = _ceiling(info)
    readers = ceiling_readers(info, splits)
    if not readers:
        return []
    rows = [[r, *(ceiling.get(s, {}).get(r, {}).get("weighted_f1") for s in splits)] for r in readers]
    return [
        "<h2>Best reachable</h2>",
        paragraph("W-F1 of optimal readers of these data: of everything, and without one kind of evidence.", "note"),
        table(["reader", *splits], rows),
    ]


def ceiling_readers(info: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Names of the optimal readers that a corpus knows about, `full` first."""
    ceiling = _ceiling(info)
    return list(dict.fromkeys(r for s in splits for r in ceiling.get(s, {})))


def _ceiling(info: Mapping[str, Any]) -> Ceiling:
    """What a corpus says of it; nothing where it means something else by the word."""
    try:
        return check(Ceiling, info.get("ceiling") or {}, "ceiling", ValueError)
    except ValueError:
        return {}


def best_reachable(info: Mapping[str, Any], modalities: Sequence[str], split: str) -> float | None:
    """W-F1 of the optimal reader of these modalities on a split, where the corpus knows it."""
    readers = _ceiling(info).get(split, {})
    every = [name.removeprefix("only_") for name in readers if name.startswith("only_")]
    absent = [m for m in every if m not in modalities]
    names = {0: "full", 1: f"without_{absent[0]}" if absent else ""}
    name = f"only_{modalities[0]}" if len(modalities) == 1 else names.get(len(absent), "")
    return readers.get(name, {}).get("weighted_f1")


def _curves(history: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> bytes:
    split = result["selection"]
    epochs = [row["epoch"] for row in history]
    fig, (left, right) = figure(9.0, 3.4, 2)
    left.plot(epochs, [r["train_loss"] for r in history], label="train objective")
    left.plot(epochs, [r[f"{split}_log_loss"] for r in history], label=f"{split} log loss")
    right.plot(epochs, [r["train_weighted_f1"] for r in history], label="train W-F1 (while training)")
    right.plot(epochs, [r[f"{split}_weighted_f1"] for r in history], label=f"{split} W-F1")
    right.axvline(result["epoch"], color="0.6", linestyle=":", label="chosen")
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    return png(fig)


def _confusion(scores: Mapping[str, Any], title: str) -> bytes:
    names, counts = [unmathematical(n) for n in scores["per_class"]], np.asarray(scores["confusion"])
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.6 + 0.55 * len(names)
    fig, axis = figure(size + 0.6, size)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    for (i, j), n in np.ndenumerate(counts):
        axis.text(j, i, n, ha="center", va="center", fontsize=8, color="white" if share[i, j] > 0.5 else "black")
    return png(fig)
