"""The runner, the results, the pytest decorator and what the command line calls."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from typing import ClassVar

import fusion_breakers_inputs  # noqa: F401 - fills BREAKERS
import pytest
import torch
from rich.console import Console
from sound_fusions import BREAKERS, SPEC, Sound
from torch import nn

from fusionzoo.errors import FusionZooError, OptionError, UnknownNameError
from fusionzoo.testing import CheckFailure, all_checks, check_fusion, run
from fusionzoo.testing.comparisons import counts, differs, reached

pytest_plugins = ["pytester"]


class Noisy(Sound):
    """Attention over the dialogue, with a count of parameters that is wrong under one option.

    Options: width. Parameters: wrong. Source: the tests of fusionzoo, 2025. Shapes: `(B, T, d)` -> `(B, T, out_dim)`.
    """

    @classmethod
    def test_params(cls):
        return [{}, {"width": 5}]

    @classmethod
    def parameter_count(cls, dims, out_dim=None, *, width=6, missing="zero", **_):
        return super().parameter_count(dims, out_dim, missing=missing)


class ReadsValues(Sound):
    """Attention over the dialogue, whose constructor reads a value, which is not there on the meta device.

    Options: width. Parameters: as its base. Source: the tests of fusionzoo, 2025. Shapes: `(B, T, d)` -> `(B, T, out_dim)`.
    """

    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.largest = float(self.query.weight.max())


class CountsByItself(ReadsValues):
    __doc__ = ReadsValues.__doc__

    @classmethod
    def parameter_count(cls, dims, out_dim=None, **options):
        return sum(p.numel() for p in cls(dims, out_dim, **options).parameters())


def test_a_constructor_that_cannot_run_on_the_meta_device_is_told_so_unless_it_counts_by_itself():
    with pytest.raises(CheckFailure, match=r"counting raises .*meta device"):
        check_fusion(ReadsValues, only=["parameter_count"]).raise_if_failed()
    assert check_fusion(CountsByItself, only=["parameter_count"]).ok


def test_results_say_what_happened():
    results = check_fusion("sum")
    assert results.ok
    assert results.exit_code == 0
    assert len(results) == len(all_checks("fusion"))
    assert {r.status for r in results} == {"passed", "skipped"}
    assert all(r.reason for r in results.skipped)
    assert all(r.rule and r.theme for r in results)
    document = json.loads(results.to_json())
    assert document["counts"]["passed"] == len(results.passed)
    assert document["results"][0]["check"] == results[0].check
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(results.table())
    text = console.export_text()
    assert "padding_poison" in text
    assert "fusion sum: " in text
    assert "slow; run with slow=True" in str(results)


def test_every_set_of_test_params_is_checked():
    results = check_fusion(Noisy)
    assert [r.check for r in results.failed] == ["parameter_count"]
    assert results.failed[0].reason.startswith("with width=5: ")
    assert check_fusion(Noisy, options={}).ok
    with pytest.raises(CheckFailure, match="parameter_count: with width=5"):
        results.raise_if_failed()


def test_expected_failures_are_strict():
    breaker = BREAKERS["parameter_count"]
    results = check_fusion(breaker.cls, spec=breaker.spec, expected_failures={"parameter_count": "off by one"})
    assert results.ok
    assert results.expected[0].reason.startswith("off by one (seen: ")
    results = check_fusion(Sound, spec=SPEC, expected_failures={"parameter_count": "off by one"})
    assert [r.check for r in results.failed] == ["parameter_count"]
    assert "but it passed" in results.failed[0].reason
    with pytest.raises(OptionError, match=r"'parameter_cuont'.*did you mean 'parameter_count'"):
        check_fusion(Sound, expected_failures={"parameter_cuont": "x"})
    with pytest.raises(OptionError, match="say why"):
        check_fusion(Sound, expected_failures={"parameter_count": ""})


class RoundingOnly(Sound):
    """As sound, and a parameter that adds what rounding would.

    Options: width. Parameters: one more. Source: the tests of fusionzoo, 2025. Shapes: `(B, T, d)` -> `(B, T, out_dim)`.
    """

    size = 1e-17

    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.shift = nn.Parameter(torch.zeros(()))

    def combine(self, streams):
        result = super().combine(streams)
        result.fused = result.fused + self.size * self.shift
        return result


class SaysSo(RoundingOnly):
    without_gradient: ClassVar = {"shift": "too small to be told from rounding"}


class SaysSoWrongly(SaysSo):
    size = 1e-6


class SaysSoOfNothing(SaysSo):
    without_gradient: ClassVar = {"shfit": "too small"}


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (RoundingOnly, "parameters without gradient: shift"),
        (SaysSo, None),
        (SaysSoWrongly, "shift is declared to have no gradient (too small to be told from rounding) and receives one"),
        (SaysSoOfNothing, "without_gradient names shfit, which is no parameter"),
    ],
)
def test_a_gradient_of_the_size_of_rounding_is_none_and_a_declaration_is_held_to(cls, reason):
    (result,) = check_fusion(cls, spec=SPEC, only=["gradient_to_parameters"])
    assert result.status == ("passed" if reason is None else "failed")
    assert (reason or "") in result.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_counts_is_judged_beside_the_largest(dtype):
    eps = torch.finfo(dtype).eps
    x = torch.tensor([0.0, 4 * eps, -4 * eps, 1e-4, -1e-4, torch.nan], dtype=dtype)
    for scale in (1.0, 1e6):
        assert counts(x * scale, scale).tolist() == [False, False, False, True, True, True]
    assert not counts(torch.zeros(3, dtype=dtype), 0.0).any()
    found = reached({"a": x[:3] * 8, "b": torch.ones(2, dtype=dtype) * 8, "none": None})
    assert {k: bool(v.any()) for k, v in found.items()} == {"a": False, "b": True, "none": False}
    assert differs(torch.ones(2, dtype=dtype), torch.ones(2, dtype=dtype) * (1 + 1e-4))
    assert not differs(torch.ones(2, dtype=dtype), torch.ones(2, dtype=dtype) * (1 + 4 * eps))


def test_only_runs_what_is_named_and_what_it_needs():
    results = check_fusion(Sound, only=["padding_poison"])
    assert [r.check for r in results] == ["padding_poison"]
    broken = BREAKERS["runs"]
    result = check_fusion(broken.cls, only=["padding_poison"])
    assert result[0].status == "skipped"
    assert "'runs'" in result[0].reason
    assert not result.ok
    with pytest.raises(OptionError, match="no fusion check 'padding_poisson'"):
        check_fusion(Sound, only=["padding_poisson"])


def test_a_class_without_spec_skips_what_needs_one():
    skipped = {r.check: r.reason for r in check_fusion(Sound).skipped}
    assert "fusionzoo_register" in skipped["spec_summary"]


def test_dims_of_ones_own():
    assert check_fusion("gated", dims={"face": 3, "voice": 4}).ok
    assert check_fusion("gated", [5, 6, 2, 3]).ok


def test_what_is_not_a_class_or_name_is_refused():
    with pytest.raises(OptionError, match="not an instance"):
        check_fusion(Sound([3, 4]))
    with pytest.raises(UnknownNameError, match="did you mean"):
        check_fusion("conact")
    with pytest.raises(OptionError, match=r"no checks for plugins of kind 'dataest'.*did you mean 'dataset'"):
        all_checks("dataest")


def test_what_the_command_line_calls():
    results = run("sum", expect=["parameter_count=not so"])
    assert results.exit_code == 1
    assert run("bc-lstm", only=["constructs"]).kind == "host"
    with pytest.raises(UnknownNameError, match="no kind of plugin"):
        run("sum", "fuison")
    assert run("cross-entropy").exit_code == 0
    with pytest.raises(OptionError, match="check=reason"):
        run("sum", expect=["parameter_count"])
    with pytest.raises(UnknownNameError):
        run("no-such-plugin")


def test_importing_the_package_is_light():
    code = "import sys, fusionzoo.testing; print(sorted({'torch', 'pytest', 'numpy'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    code = "import sys; from fusionzoo.testing import check_fusion; check_fusion('sum'); print('pytest' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_one_pytest_id_a_check(pytester):
    pytester.makepyfile(
        test_it=textwrap.dedent(
            """
            import pytest
            from fusionzoo.fusion import Fused
            from fusionzoo.testing import parametrize_checks
            import fusionzoo, torch

            class Broken(fusionzoo.get("sum")):
                def combine(self, streams):
                    result = super().combine(streams)
                    return Fused(result.fused / len(result.fused))

            ONLY = ["batch_size", "padding_poison", "spec_summary"]

            @parametrize_checks("concat", Broken, only=ONLY)
            def test_conformance(check):
                check()

            @parametrize_checks(Broken, only=ONLY, expected_failures=lambda cls: {"batch_size": f"{cls.__name__} divides"})
            def test_expected(check):
                check()

            @parametrize_checks("concat", only=["padding_poison"], expected_failures={"padding_poison": "not so"})
            def test_unexpected(check):
                check()
            """
        )
    )
    result = pytester.runpytest("-v", "-rA", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=5, failed=2, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_conformance?concat-padding_poison?*PASSED*",
            "*test_conformance?Broken-batch_size?*FAILED*",
            "*test_expected?Broken-batch_size?*XFAIL*",
        ]
    )
    result.stdout.fnmatch_lines(
        ["*CheckFailure: Broken: batch_size: the output must not change*", "*The rule: An item*"]
    )


def test_the_decorator_needs_a_subject():
    from fusionzoo.testing import parametrize_checks

    with pytest.raises(OptionError, match="at least one"):
        parametrize_checks()
    with pytest.raises(FusionZooError, match="did you mean 'padding_poison'"):
        parametrize_checks("sum", expected_failures={"padding_poisn": "x"})
