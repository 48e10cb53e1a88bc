"""Plots, where matplotlib is installed (the extra `report`)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._text import unmathematical
from fusionzoo.scoring.metrics import LOG_LOSS, MAIN, METRICS

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile, Scores


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


def curves(history: Sequence[Mapping[str, Any]], result: ResultFile) -> bytes:
    """Loss and main metric of every epoch, as PNG."""
    return png(draw_curves(history, result))


def draw_curves(history: Sequence[Mapping[str, Any]], result: ResultFile) -> Any:
    """Loss and main metric of every epoch, as a figure."""
    split, short = result["selection"], METRICS[MAIN].short
    epochs = [row["epoch"] for row in history]
    fig, (left, right) = figure(9.0, 3.4, 2)
    left.plot(epochs, [r["train_loss"] for r in history], label="train objective")
    left.plot(epochs, [r[f"{split}_{LOG_LOSS}"] for r in history], label=f"{split} log loss")
    right.plot(epochs, [r[f"train_{MAIN}"] for r in history], label=f"train {short} (while training)")
    right.plot(epochs, [r[f"{split}_{MAIN}"] for r in history], label=f"{split} {short}")
    right.axvline(result["epoch"], color="0.6", linestyle=":", label="chosen")
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
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
