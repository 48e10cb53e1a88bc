"""`card.json` of a finished run: all that it takes to do it again and to compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fusionzoo._file_schemas import CardFile, FoldsFile
from fusionzoo._files import write_json
from fusionzoo._schema import check, parse_json, text_of
from fusionzoo.errors import ConfigError
from fusionzoo.runs.config import RunConfig
from fusionzoo.scoring.metrics import METRICS

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile

RUN_CARD, SUMMARY = "card.json", "summary.json"
_OF_ENVIRONMENT = ("command", "python", "platform", "device", "threads", "precision", "packages", "git")
_EXPECTED = "expected a finished run's folder, its card.json, or a recipe's name (fusionzoo plugins --kind recipe)"


def write_card(folder: Path, config: RunConfig, result: ResultFile, environment: Mapping[str, Any]) -> None:
    """Write the card.

    Parameters
    ----------
    folder : the run folder.
    config : as it was in force.
    result : the contents of `result.json`.
    environment : the contents of `environment.json`.
    """
    found = cast("Mapping[str, Any]", result)
    scores = {s: None if not found[s] else {k: found[s][k] for k in METRICS} for s in ("dev", "test")}
    write_json(
        folder / RUN_CARD,
        {
            "format": 1,
            "recipe": result.get("recipe"),
            "config": config.to_dict(),
            "scores": scores,
            **{k: found[k] for k in ("seed", "epoch", "selection", "metric", "parameters", "seconds")},
            "data": {k: found["data"][k] for k in ("name", "sha256")},
            **{k: environment.get(k) for k in _OF_ENVIRONMENT},
        },
    )


def read_card(path: str | Path) -> CardFile:
    """What a finished run says about itself: the card, from its file, its run folder or a cross-validation's folder.

    Raises
    ------
    ConfigError : it is something else.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    file = next((f for f in (folder / RUN_CARD, folder / SUMMARY) if f.is_file()), None) if path.is_dir() else path
    if file is None or not file.is_file():
        raise ConfigError(f"{str(path)!r} holds no {RUN_CARD}; {_EXPECTED}")
    content = parse_json(text_of(file, _refused), str(file), _refused)
    if isinstance(content, dict) and "folds" in content and "mean" in content:
        return _of_folds(content, file)
    return check(CardFile, content, str(file), _refused)


def _of_folds(content: Mapping[str, Any], file: Path) -> CardFile:
    found = check(FoldsFile, content, str(file), _refused)
    means: Mapping[str, Any] = found["mean"]
    test = {k: means[k]["mean"] for k in METRICS if k in means}
    if None in test.values():
        raise _refused(f"{str(file)!r} holds no scores: no fold had finished")
    config = RunConfig.load(file.parent / "config.yaml").to_dict()
    return cast(CardFile, {**found, "config": config, "scores": {"test": test, "dev": None}})


def _refused(message: str) -> ConfigError:
    return ConfigError(f"{message}; {_EXPECTED}")
