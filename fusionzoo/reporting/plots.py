"""Plots, where matplotlib is installed (the extra `report`)."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._text import unmathematical
from fusionzoo.scoring.metrics import LOG_LOSS, MAIN, METRICS

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile, Scores
    from fusionzoo.scoring.statistics import Ranks

#: The rows of `metrics.csv`.
History = Sequence[Mapping[str, Any]]


def have_plots() -> bool:
    """Whether matplotlib is installed (the extra `report`)."""
    return importlib.util.find_spec("matplotlib") is not None


def figure(width: float = 7.0, height: float = 3.6, columns: int = 1, rows: int = 1, **grid: Any) -> tuple[Any, Any]:
    """A matplotlib figure, and its axes, that needs no display and leaves pyplot's state alone.

    Parameters
    ----------
    width, height : in inches.
    columns, rows : of axes.
    grid : what else `matplotlib.figure.Figure.subplots` takes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **grid)


def png(fig: Any) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def svg(fig: Any) -> str:
    """A figure as the `<svg>` of a page: its text is text, black is the page's ink, the first colours are the page's own."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fusionzoo"}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        fig.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = re.sub(
        r"<metadata>.*?</metadata>\s*", "", buffer.getvalue()[buffer.getvalue().index("<svg") :], flags=re.DOTALL
    )
    # Names in one picture must not be those in another on the same page.
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>p{mark}-", text)
    width, height = (float(x) for x in re.findall(r'(?:width|height)="([\d.]+)pt"', text)[:2])
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt" width="[\d.]+pt"', "", text, count=1)
    text = text.replace("<svg ", f'<svg width="{width * 4 / 3:.0f}" height="{height * 4 / 3:.0f}" ', 1)
    return re.sub("|".join(_INK), lambda m: _INK[m[0]], text)


#: Colours of a figure on white -> those of a page, which may be dark.
_INK = {
    "#000000": "currentColor", "#333333": "currentColor", "#737373": "var(--soft)", "#999999": "var(--soft)",
    "#1f77b4": "var(--accent)", "#ff7f0e": "var(--second)", "#2ca02c": "var(--good)",
}  # fmt: skip


def curves(history: History, result: ResultFile) -> bytes:
    """Loss and main metric of every epoch, as PNG."""
    return png(draw_curves(history, result))


def draw_curves(history: History, result: ResultFile) -> Any:
    """Loss and main metric of every epoch, as a figure."""
    split, short = result["selection"], METRICS[MAIN].short
    epochs = [int(row["epoch"]) for row in history]
    marker = "." if len(epochs) == 1 else ""
    fig, (left, right) = figure(9.0, 3.4, 2)
    lines = [
        (left, "train_loss", "train objective"),
        (left, f"{split}_{LOG_LOSS}", f"{split} log loss"),
        (right, f"train_{MAIN}", f"train {short} (while training)"),
        (right, f"{split}_{MAIN}", f"{split} {short}"),
    ]
    for axis, column, label in lines:
        axis.plot(epochs, [r[column] for r in history], label=label, marker=marker)
    right.axvline(result["epoch"], color="0.6", linestyle=":", label="chosen")
    for axis in (left, right):
        _epochs(axis)
    return fig


def _epochs(axis: Any) -> None:
    """An axis of epochs, which are whole; the legend above."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlabel("epoch")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def critical_difference(ranks: Ranks) -> Any:
    """Mean ranks on a line, and bars that join those which are not told apart (Demšar 2006).

    Parameters
    ----------
    ranks : of `fusionzoo.scoring.statistics.rank_over_blocks`.
    """
    count, together = len(ranks.names), ranks.together()
    top = 0.35 + 0.22 * len(together)  # below the line: first the bars, then the names
    rows = (count + 1) // 2
    fig, axis = figure(6.4, 0.75 * (1.1 + top + 0.34 * rows))
    low, high = 1, max(count, 2)
    axis.set(xlim=(low - 0.35 * (high - low), high + 0.35 * (high - low)), ylim=(-(top + 0.34 * (rows - 0.5)), 0.9))
    axis.set_axis_off()
    axis.plot([low, high], [0, 0], color="black", linewidth=1)
    for rank in range(low, high + 1):
        axis.plot([rank, rank], [0, 0.12], color="black", linewidth=1)
        axis.text(rank, 0.18, str(rank), ha="center", va="bottom", fontsize=9)
    width = min(ranks.critical, high - low)
    axis.plot([low, low + width], [0.58, 0.58], "|-", color="C1", linewidth=1.5, markersize=8)
    axis.text(low, 0.66, f"critical difference {ranks.critical:.2f}", ha="left", va="bottom", fontsize=9)
    for i, (name, rank) in enumerate(zip(ranks.names, ranks.mean, strict=True)):
        left = i < rows
        y = -(top + 0.34 * (i if left else count - 1 - i))
        end = low - 0.02 * (high - low) if left else high + 0.02 * (high - low)
        axis.plot([rank, rank, end], [0, y, y], color="0.45", linewidth=0.8)
        label = f"{unmathematical(name)} {rank:.2f}" if left else f"{rank:.2f} {unmathematical(name)}"
        axis.text(end, y, f"{label} " if left else f" {label}", ha="right" if left else "left", va="center", fontsize=9)
    for i, (first, last) in enumerate(together):
        y = -0.22 * (i + 1)
        ends = [ranks.mean[first] - 0.03 * (high - low), ranks.mean[last] + 0.03 * (high - low)]
        axis.plot(ends, [y, y], color="C0", linewidth=4, solid_capstyle="round")
    return fig


def confusion(scores: Scores, title: str) -> bytes:
    """A confusion matrix, coloured by the share of each true class, as PNG."""
    return png(draw_confusion(scores, title))


def draw_confusion(scores: Scores, title: str) -> Any:
    """The same as a figure."""
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
    return fig
