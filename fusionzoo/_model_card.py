"""The `README.md` of a saved model: who made it, how to load it, and the scores of the run that trained it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionzoo.specs import Card

_MARK = "<!-- written by fusionzoo; remove this line to keep your edits -->"
_NAMES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "ua": "UA", "wa": "WA"}


def keeps(path: Path) -> bool:
    """Whether a README is a person's, and stays as it is."""
    return path.is_file() and _MARK not in path.read_text(encoding="utf-8", errors="replace")


def model_card(config: Mapping[str, Any], card: Card, parameters: int, run: Mapping[str, Any] | None) -> str:
    """Markdown with the metadata block that model hubs read."""
    kind, name = config["kind"], config["name"]
    fusion = config["arguments"].get("fusion") if kind == "host" else None
    title = f"{name} with {fusion['name']}" if fusion else name
    without = [("its fusion", "none: there is one modality")] if kind == "host" and not fusion else []
    parts = [_metadata(title, run), f"# {title}", f"{card.summary[:1].upper()}{card.summary[1:]}."]
    rows = [
        (kind, f"`{name}` of {card.distribution} {card.version}"),
        *(
            [("its fusion", f"`{fusion['name']}` of {fusion['distribution']} {fusion['version']}")]
            if fusion
            else without
        ),
        ("modalities", ", ".join(f"{m} ({d})" for m, d in _dims(config).items())),
        ("classes", ", ".join(config.get("label_names") or ())),
        ("parameters", f"{parameters:,}"),
        ("paper", card.paper),
        ("code", card.code),
    ]
    parts.append("\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows if v)]))
    others = {card.distribution, fusion["distribution"] if fusion else card.distribution}
    install = " ".join(sorted({"fusionzoo", *(d for d in others if not d.startswith("("))}))
    parts += [
        "## Use",
        f"```bash\npip install {install}\n```",
        f'```python\nimport fusionzoo\n\n{kind} = fusionzoo.{kind.title()}.from_pretrained("PATH OR OWNER/NAME")\n```',
    ]
    if run is not None:
        parts.append(_scores(run))
    if card.bibtex:
        parts += ["## Cite", f"```bibtex\n{card.bibtex.strip()}\n```"]
    return "\n\n".join([*parts, _MARK]) + "\n"


def _dims(config: Mapping[str, Any]) -> dict[str, int]:
    dims = config["arguments"]["dims"]
    return dict(dims) if isinstance(dims, Mapping) else {f"m{i}": d for i, d in enumerate(dims)}


def _metadata(title: str, run: Mapping[str, Any] | None) -> str:
    """YAML; its values are written as JSON, which is YAML, so that no name can break out of its line."""
    tags = ["fusionzoo", "multimodal", "emotion-recognition-in-conversation"]
    lines = ["---", "library_name: fusionzoo", f"tags: {json.dumps(tags)}"]
    scores = _test_scores(run)
    if run is not None and scores:
        data = str(run["model"].get("data", {}).get("name", "unknown"))
        result = {
            "task": {"type": "emotion-recognition-in-conversation", "name": "Emotion recognition in conversation"},
            "dataset": {"type": data, "name": data},
            "metrics": [{"type": k, "name": f"test {v}", "value": scores[k]} for k, v in _named(scores).items()],
        }
        lines.append(f"model-index: {json.dumps([{'name': title, 'results': [result]}], ensure_ascii=False)}")
    return "\n".join([*lines, "---"])


def _named(scores: Mapping[str, Any]) -> dict[str, str]:
    """The metrics among a split's facts, and what they are called."""
    return {k: _NAMES.get(k, k) for k, v in scores.items() if isinstance(v, float) and k != "log_loss"}


def _test_scores(run: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if run is None else run["result"].get("test") or {}


def _scores(run: Mapping[str, Any]) -> str:
    model, result = run["model"], run["result"]
    splits = {s: result.get(s) for s in ("dev", "test") if result.get(s)}
    lines = ["## Scores", f"Data: {model.get('data', {}).get('name', 'unknown')}, seed {result.get('seed')}, one run."]
    lines.append(
        f"The epoch ({result.get('epoch')} of {result.get('epochs')}) was chosen on the {result.get('selection')} split."
    )
    if result.get("selection") == "test":
        lines.append("**The test scores below are therefore too high**: they were looked at to choose the model.")
    names = {k: v for scores in splits.values() for k, v in _named(scores).items()}
    table = ["| split | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 1) + "|"]
    for split, scores in splits.items():
        cells = (f"{scores[k]:.4f}" if isinstance(scores.get(k), (int, float)) else "" for k in names)
        table.append(f"| {split} | " + " | ".join(cells) + " |")
    return "\n\n".join([lines[0], " ".join(lines[1:]), "\n".join(table)])
