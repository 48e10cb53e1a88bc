"""Scores and losses of every epoch, on a page."""

from __future__ import annotations

from collections.abc import Sequence

from fusionzoo._file_schemas import ResultFile
from fusionzoo.reporting.charts import Line, lines
from fusionzoo.reporting.pages import columns, heading
from fusionzoo.reporting.plots import History
from fusionzoo.scoring.metrics import LOG_LOSS, MAIN, METRICS


def training_curves(runs: Sequence[tuple[History, ResultFile]]) -> str:
    """Two pictures side by side; of several runs each is a line.

    Parameters
    ----------
    runs : rows of `metrics.csv` and contents of `result.json` of each.
    """
    short = METRICS[MAIN].short
    scores, losses = [], []
    for history, result in runs:
        split, epoch = result["selection"], result["epoch"]
        judged = _points(history, f"{split}_{MAIN}")
        chosen = next(((x, y) for x, y in judged if x == epoch), None)
        scores.append(Line(f"train {short} (while training)", _points(history, f"train_{MAIN}")))
        scores.append(Line(f"{split} {short}, chosen epoch marked", judged, second=True, dot=chosen))
        losses.append(Line("train objective", _points(history, "train_loss")))
        losses.append(Line(f"{split} log loss", _points(history, f"{split}_{LOG_LOSS}"), second=True))
    shown = {f"{short} of every epoch": scores, "Losses of every epoch": losses}
    return columns(
        [
            heading(words, 3) + lines([line for line in of if line.points], "epoch", words)
            for words, of in shown.items()
            if any(line.points for line in of)
        ]
    )


def _points(history: History, column: str) -> list[tuple[int, float]]:
    return [(int(row["epoch"]), float(row[column])) for row in history if row.get(column) not in (None, "")]
