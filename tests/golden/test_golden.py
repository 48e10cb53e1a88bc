"""Our layers and hosts against numbers that the authors' own code produced: outputs, and gradients of everything.

Each `.npz` holds random inputs and weights, the official outputs, and the gradients of `sum(output * cotangent)`. The
tolerance is 1e-5 of the largest reference value (for parameters, of the largest gradient of the case), for float32 against
references computed in float64.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.npz"))

#: (case, official parameter) -> why no parameter of ours corresponds, although a gradient is recorded for it.
WITHOUT_COUNTERPART: dict[tuple[str, str], str] = {}


def _load_cases() -> Any:
    """`cases.py`, which holds the table and its helpers, and every `cases_*.py`, which add to it."""
    for path in (HERE / "cases.py", *sorted(HERE.glob("cases_*.py"))):
        name = "golden_" + path.stem
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules["golden_cases"]


cases = _load_cases()
CASES = cases.CASES


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The meta data and arrays of a golden file, packed states unpacked."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {k: archive[k] for k in archive.files}
    meta = json.loads(str(arrays.pop("meta")))
    if "pack.state" in arrays:
        flat, offset = arrays.pop("pack.state"), 0
        for name, shape in meta["pack"]:
            size = int(np.prod(shape))
            arrays[f"state.{name}"] = flat[offset : offset + size].reshape(shape)
            offset += size
    return meta, arrays


def assert_close(actual: Tensor | np.ndarray, expected: np.ndarray, what: str) -> None:
    """Equal to 1e-5 of `max(1, max|expected|)`."""
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else actual
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if expected.size:
        error = np.abs(actual.astype(np.float64) - expected).max()
        assert error <= 1e-5 * max(1.0, np.abs(expected).max()), f"{what}: off by {error:.2e}"


def leaves(outputs: dict[str, Tensor]) -> list[Tensor]:
    """All leaf tensors that the outputs were computed from."""
    found, seen = [], set()
    queue = [t.grad_fn for t in outputs.values()]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        queue.extend(following for following, _ in node.next_functions)
    return found


def counterpart_gradients(entry: np.ndarray, parameters: list[Tensor]) -> list[np.ndarray]:
    """Gradients that our parameters offer for an official one, matched by value.

    A parameter of ours may be the official one, its transpose, a stack of several official ones, or one of the row
    blocks that the official one is made of.
    """
    squeezed = entry.reshape([n for n in entry.shape if n > 1])
    if squeezed.ndim < entry.ndim and not any(p.shape == entry.shape for p in parameters):
        # A convolution of kernel one is a linear map here.
        return [g.reshape(entry.shape) for g in counterpart_gradients(squeezed, parameters)]
    found: list[np.ndarray] = []
    blocks: list[tuple[slice, np.ndarray]] = []
    for parameter in parameters:
        value = parameter.detach().numpy()
        grad = np.zeros_like(value) if parameter.grad is None else parameter.grad.numpy()
        if value.shape == entry.shape and np.array_equal(value, entry):
            found.append(grad)
        elif entry.ndim == 2 and value.shape == entry.shape[::-1] and np.array_equal(value.T, entry):
            found.append(grad.T)
        elif value.ndim == entry.ndim and entry.ndim and value.shape[1:] == entry.shape[1:]:
            small, large = sorted((len(value), len(entry)))
            ours_is_larger = len(value) == large
            for start in range(large - small + 1):
                block = slice(start, start + small)
                if ours_is_larger and np.array_equal(value[block], entry):
                    found.append(grad[block])
                elif not ours_is_larger and np.array_equal(entry[block], value):
                    blocks.append((block, grad))
    whole = _put_together(entry, blocks)
    found += whole
    # Shared upstream and copied here: the gradients add up.
    summed = [np.sum(found, axis=0)] if len(found) > 1 else []
    # A single number of ours may equal one of theirs by accident.
    without = _put_together(entry, [(b, g) for b, g in blocks if g.size > 1]) if whole else []
    return [*found, *summed, *without]


def _put_together(entry: np.ndarray, blocks: list[tuple[slice, np.ndarray]]) -> list[np.ndarray]:
    """The gradient that blocks of rows make up, if they cover all rows."""
    total, covered = np.zeros(entry.shape, np.float64), np.zeros(entry.shape, bool)
    for block, grad in blocks:
        total[block] += grad
        covered[block] = True
    return [total] if entry.ndim and covered.all() else []


def summary(grad: np.ndarray) -> np.ndarray:
    grad = grad.astype(np.float64)
    return np.array([grad.sum(), np.abs(grad).sum(), np.sqrt((grad**2).sum())])


def expected_parameter_gradients(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Official parameter -> its gradient, or the three numbers that summarise it."""
    out = {k[11:]: v for k, v in arrays.items() if k.startswith("grad.state.")}
    if "gsum" in arrays:
        out |= dict(zip(meta["gsum_names"], arrays["gsum"], strict=True))
    return out


def test_every_file_has_a_case_and_every_case_a_file():
    assert {f.stem for f in FILES} == set(CASES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_agrees_with_the_official_code(path: Path):
    meta, arrays = read(path)
    outputs = CASES[path.stem](meta, arrays)
    expected = {k[4:]: v for k, v in arrays.items() if k.startswith("out.")}
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        assert_close(outputs[name], value, f"output {name}")

    objective = torch.zeros(())
    for key, value in arrays.items():
        if key.startswith("cot."):
            objective = objective + (outputs[key[4:]] * torch.from_numpy(value)).sum()
    if not objective.requires_grad:
        # A table of constants: no gradients were recorded.
        assert not any(k.startswith(("cot.", "grad.")) for k in arrays)
        return
    tensors = leaves(outputs)
    for tensor in tensors:
        tensor.grad = None
    objective.backward()

    for key, value in arrays.items():
        if key.startswith("grad.") and not key.startswith("grad.state."):
            given = arrays[f"in.{key[5:]}"]
            matches = [t for t in tensors if t.shape == given.shape and np.array_equal(t.detach().numpy(), given)]
            assert matches, f"the input {key[5:]} is not part of the graph"
            assert matches[0].grad is not None
            assert_close(matches[0].grad, value, f"gradient of input {key[5:]}")

    checked = 0
    gradients = expected_parameter_gradients(meta, arrays)
    # A gradient that is small because large ones cancel carries their rounding: how much depends on the processor.
    scale = 1e-5 * max([1.0, *(float(np.abs(v).max()) for v in gradients.values() if v.size)])
    for name, value in gradients.items():
        if (path.stem, name) in WITHOUT_COUNTERPART:
            continue
        offered = counterpart_gradients(arrays[f"state.{name}"].astype(np.float32), tensors)
        summed = f"grad.state.{name}" not in arrays
        if not offered:
            assert np.abs(value).max() <= scale, f"no parameter of ours corresponds to {name}, which has a gradient"
            continue
        errors = [np.abs((summary(g) if summed else g) - value).max() for g in offered]
        assert min(errors) <= scale, f"gradient of {name} is off by {min(errors):.2e}"
        checked += 1
    assert checked or not gradients


def test_a_wrong_gradient_is_noticed():
    # The matching by value must not be able to pass by accident.
    entry = np.arange(6, dtype=np.float32).reshape(2, 3)
    ours = torch.from_numpy(entry.T.copy()).requires_grad_()
    ours.grad = torch.arange(6.0).reshape(3, 2) * 2
    (grad,) = counterpart_gradients(entry, [ours])
    np.testing.assert_array_equal(grad, np.array([[0, 4, 8], [2, 6, 10]]))
    assert counterpart_gradients(entry + 1, [ours]) == []
    first, last = (torch.from_numpy(entry[0, part].copy()).requires_grad_() for part in (slice(2), slice(1, 3)))
    accident = torch.from_numpy(entry[0, 1:2].copy()).requires_grad_()
    first.grad, last.grad, accident.grad = torch.ones(2), torch.ones(2), torch.full((1,), 9.0)
    offered = counterpart_gradients(entry[0], [first, last, accident])
    assert any(np.array_equal(grad, [1, 2, 1]) for grad in offered)
    stacked = torch.from_numpy(np.concatenate([entry + 9, entry])).requires_grad_()
    stacked.grad = torch.ones(4, 3)
    (grad,) = counterpart_gradients(entry, [stacked])
    np.testing.assert_array_equal(grad, np.ones((2, 3)))
