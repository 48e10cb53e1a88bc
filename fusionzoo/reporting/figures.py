"""Pictures for pages, papers and notebooks: each function takes what was measured and returns a matplotlib figure.

`fusionzoo.reporting.plots` has those that every run's page shows; these answer questions about a trained model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._text import unmathematical
from fusionzoo.reporting.plots import figure
from fusionzoo.scoring.diagnostics.modality_use import ANY
from fusionzoo.scoring.diagnostics.predicted import main_short

if TYPE_CHECKING:
    from fusionzoo.scoring.diagnostics.calibration import Calibration
    from fusionzoo.scoring.diagnostics.inside import Attention
    from fusionzoo.scoring.diagnostics.modality_use import ModalityUse

#: Labels beside an axis: more would overlap.
_MOST_LABELS = 40
_MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Costed:
    """A model in the picture of cost against score.

    Parameters
    ----------
    name : of the model.
    cost : what it takes; less is better.
    score : what it reaches; more is better.
    """

    name: str
    cost: float
    score: float


def reliability(calibrations: Mapping[str, Calibration]) -> Any:
    """Accuracy beside confidence, and how many utterances there are at each confidence.

    Parameters
    ----------
    calibrations : name of a model -> its calibration.
    """
    fig, (top, below) = figure(4.8, 5.0 + 0.2 * len(calibrations), rows=2, height_ratios=[4, 1], sharex=True)
    top.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="calibrated")
    for name, found in calibrations.items():
        whose = f"{unmathematical(name)}: " if len(calibrations) > 1 else ""
        bins = round(1 / (found.bins[0].high - found.bins[0].low))
        share = np.zeros(bins)
        for b in found.bins:
            share[round(b.low * bins)] = b.count
        share /= share.sum()
        x, y = [b.confidence for b in found.bins], [b.accuracy for b in found.bins]
        (line,) = top.plot(x, y, linewidth=1, label=f"{whose}ECE {found.ece:.3f}")
        # A dot is as large as its bin: of a few utterances the accuracy says little.
        sizes = [6 + 150 * b.count / sum(o.count for o in found.bins) for b in found.bins]
        top.scatter(x, y, s=sizes, color=line.get_color(), linewidths=0, zorder=3)
        below.stairs(share, np.linspace(0, 1, bins + 1), color=line.get_color(), fill=not whose)
    top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    below.set(xlabel="confidence", ylabel="share", ylim=(0, None))
    fig.legend(frameon=False, loc="outside upper center", ncols=2 if len(calibrations) < 2 else 1, fontsize=9)
    return _open(fig)


def ablation(use: ModalityUse) -> Any:
    """The main score as it is, with each modality permuted and taken away, and of each one alone."""
    from fusionzoo.scoring.metrics import MAIN

    names = list(use.without)
    score = use.scores[MAIN]
    bars = {
        "permuted": [score - p.drop for p in use.permuted],
        "taken away": [use.without[m] for m in names],
        "alone": [use.alone[m] for m in names],
    }
    shown = {label: values for label, values in bars.items() if any(v is not None for v in values)}
    fig, axis = figure(1.8 + 1.5 * max(len(names), 2), 3.6)
    width = 0.8 / len(shown)
    for i, (label, values) in enumerate(shown.items()):
        at = np.arange(len(names)) - 0.4 + width * (i + 0.5)
        axis.bar(at, [np.nan if v is None else v for v in values], 0.92 * width, label=label)
    axis.axhline(score, color="0.2", linewidth=1, label="as it is")
    axis.axhline(use.majority, color="0.6", linewidth=1, linestyle="--", label="most frequent class")
    axis.set_xticks(range(len(names)), [unmathematical(n) for n in names])
    highest = max(v for values in ([score, use.majority], *shown.values()) for v in values if v is not None)
    axis.set(ylabel=main_short(), ylim=(0, 1.05 * highest))
    fig.legend(frameon=False, loc="outside upper center", ncols=3)
    return _open(fig)


def robustness(use: ModalityUse) -> Any:
    """The main score where more and more utterances lack a modality."""
    fig, axis = figure(5.6, 3.6)
    for i, (name, curve) in enumerate(use.missing.items()):
        label = "any, one is left" if name == ANY else unmathematical(name)
        style = {"color": "0.45", "linestyle": ":"} if name == ANY else {}
        axis.plot(
            [100 * r for r in curve], list(curve.values()), marker=_MARKERS[i % 8], markersize=4, label=label, **style
        )
    axis.axhline(use.majority, color="0.6", linewidth=1, linestyle="--", label="most frequent class")
    axis.set(xlabel="% of the utterances without it", ylabel=main_short())
    axis.set_ylim(0, 1.05 * max(use.majority, *(v for curve in use.missing.values() for v in curve.values())))
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _open(fig)


def attention(found: Attention) -> Any:
    """Attention maps over one dialogue: rows attend to columns, heads and features averaged.

    Parameters
    ----------
    found : of `fusionzoo.scoring.diagnostics.inside.attention_over`.
    """
    maps = {k: np.atleast_2d(x) for k, x in found.maps.items()}
    columns = min(3, max(len(maps), 1))
    rows = -(-len(maps) // columns) or 1
    steps = len(found.utterances)
    fig, axes = figure(1.6 + 3.1 * columns, 0.6 + 3.1 * rows, columns=columns, rows=rows, squeeze=False)
    for i, axis in enumerate(axes.flat):
        if i >= len(maps):
            axis.set_axis_off()
            continue
        name, weights = list(maps.items())[i]
        picture = axis.imshow(weights, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
        axis.set_title(unmathematical(name), fontsize=9)
        _ticks(axis, "y", weights.shape[0], found, steps, first=i % columns == 0)
        _ticks(axis, "x", weights.shape[1], found, steps, first=False)
        fig.colorbar(picture, ax=axis, fraction=0.05).ax.tick_params(labelsize=7)
    fig.suptitle(f"dialogue {unmathematical(found.dialogue)}", fontsize=10)
    return fig


def _ticks(axis: Any, which: str, size: int, found: Attention, steps: int, first: bool) -> None:
    """Names beside an axis whose length says what stands there: utterances, modalities, or neither."""
    put = axis.set_yticks if which == "y" else axis.set_xticks
    if size == len(found.modalities) and size != steps:
        put(range(size), [unmathematical(m) for m in found.modalities], fontsize=8)
    elif size == steps and first and steps <= _MOST_LABELS:
        put(range(size), [unmathematical(u) for u in found.utterances], fontsize=6)
    elif size == steps:
        at = range(0, size, max(1, size // 8))
        put(at, [str(i + 1) for i in at], fontsize=7)
        axis.set(**{f"{which}label": "utterance"})
    elif size > steps and size % steps == 0 and size // steps <= len(found.modalities):
        for part in range(1, size // steps):  # the utterances of several modalities side by side
            (axis.axhline if which == "y" else axis.axvline)(part * steps - 0.5, color="0.5", linewidth=0.8)
        put([])
        axis.set(**{f"{which}label": f"utterances of {size // steps} modalities"})
    else:
        put([])
        axis.set(**{f"{which}label": f"{size} parts" if size > 1 else ""})


def embedding(points: np.ndarray, labels: np.ndarray, names: Sequence[str], method: str = "t-SNE") -> Any:
    """Vectors in the plane, coloured by class.

    Parameters
    ----------
    points : `(N, 2)`.
    labels : `(N,)` classes; negative ones are grey.
    names : of the classes.
    method : how the map was made.
    """
    from matplotlib import colormaps

    palette = colormaps["tab10" if len(names) <= 10 else "tab20"]
    fig, axis = figure(6.2, 4.6)
    size = 60 / np.sqrt(max(len(points), 1)) + 3
    for c in (-1, *range(len(names))):
        here = points[labels == c] if c >= 0 else points[labels < 0]
        if len(here):
            colour = "0.8" if c < 0 else palette(c % palette.N)
            label = "unlabelled" if c < 0 else unmathematical(names[c])
            axis.scatter(here[:, 0], here[:, 1], s=size, color=colour, label=label, linewidths=0, alpha=0.75)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(f"{method} of the fused vectors", fontsize=10)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2)
    axis.spines[:].set_color("0.85")
    return fig


def pareto(models: Sequence[Costed], cost: str = "parameters") -> Any:
    """Cost against score; a line joins the models that no other beats in both.

    Parameters
    ----------
    models : to be shown.
    cost : what the axis is called.
    """
    fig, axis = figure(6.6, 4.2)
    front = sorted(pareto_front(models), key=lambda m: m.cost)
    axis.step([m.cost for m in front], [m.score for m in front], where="post", color="tab:blue", alpha=0.4)
    for m in models:
        best = m in front
        axis.plot(m.cost, m.score, "o", color="tab:blue" if best else "0.6", markersize=6 if best else 5, zorder=3)
    positive = all(m.cost > 0 for m in models)
    if positive and models:
        _log_axis(axis)
    low, high = axis.get_xlim()
    if positive and models:  # names stand to the right of their points
        axis.set_xlim(low, high * (high / low) ** 0.35)
    else:
        axis.set_xlim(low, high + 0.35 * (high - low))
    for m, height in zip(models, _apart([m.score for m in models], axis.get_ylim()), strict=True):
        text = f"  {unmathematical(m.name)}"
        colour = "black" if m in front else "0.45"
        axis.annotate(text, (m.cost, height), fontsize=8, va="center", color=colour)
    axis.set(xlabel=cost, ylabel=f"test {main_short()}")
    return _open(fig)


def pareto_front(models: Sequence[Costed]) -> list[Costed]:
    """Those that no other model beats: none is as cheap and better, or as good and cheaper."""
    return [m for m in models if dominating(m, models) is None]


def dominating(model: Costed, models: Sequence[Costed]) -> Costed | None:
    """The best model that is no dearer and no worse, and better in one of the two; None where there is none."""
    beat = [
        o
        for o in models
        if o.cost <= model.cost and o.score >= model.score and (o.cost < model.cost or o.score > model.score)
    ]
    return max(beat, key=lambda o: (o.score, -o.cost), default=None)


def per_class(f1: Mapping[str, Mapping[str, float]]) -> Any:
    """F1 of every class, side by side for several models.

    Parameters
    ----------
    f1 : name of a model -> class -> F1.
    """
    classes = list(dict.fromkeys(c for scores in f1.values() for c in scores))
    fig, axis = figure(1.5 + len(classes) * max(0.8, 0.24 * len(f1)), 3.6)
    width = 0.8 / max(len(f1), 1)
    for i, (name, scores) in enumerate(f1.items()):
        at = np.arange(len(classes)) - 0.4 + width * (i + 0.5)
        axis.bar(at, [scores.get(c, np.nan) for c in classes], 0.92 * width, label=unmathematical(name))
    axis.set_xticks(range(len(classes)), [unmathematical(c) for c in classes], rotation=30, ha="right")
    axis.set(ylabel="F1", ylim=(0, 1))
    if len(f1) > 1:
        fig.legend(frameon=False, loc="outside upper center", ncols=min(len(f1), 3), fontsize=8)
    return _open(fig)


def seeds(scores: Mapping[str, Sequence[float]]) -> Any:
    """The main score of every seed, and the mean of each model.

    Parameters
    ----------
    scores : name of a model -> the scores of its seeds.
    """
    fig, axis = figure(6.6, 0.9 + 0.36 * max(len(scores), 1))
    for y, values in enumerate(reversed(list(scores.values()))):
        axis.plot(values, [y] * len(values), "o", color="tab:blue", alpha=0.5, markersize=5, markeredgewidth=0)
        if values:
            axis.plot([np.mean(values)] * 2, [y - 0.28, y + 0.28], color="black", linewidth=1.5)
    axis.set_yticks(range(len(scores)), [unmathematical(n) for n in reversed(list(scores))])
    axis.set_ylim(-0.6, len(scores) - 0.4)
    axis.set_xlabel(f"test {main_short()}: seeds, and their mean")
    return _open(fig)


def _log_axis(axis: Any) -> None:
    """A logarithmic x axis with ticks that read `20 k`, `50 k`, `0.1`."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(EngFormatter() if axis.get_xlim()[1] > 1000 else "{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())


def _apart(heights: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Heights for labels beside points, moved up where two would lie on each other."""
    least = 0.045 * (limits[1] - limits[0])
    out = list(heights)
    order = sorted(range(len(out)), key=out.__getitem__)
    for below, above in pairwise(order):
        out[above] = max(out[above], out[below] + least)
    return out


def _open(fig: Any) -> Any:
    """Without the frame's upper and right edge."""
    for axis in fig.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return fig
