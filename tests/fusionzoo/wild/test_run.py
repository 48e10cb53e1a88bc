"""`fusionzoo.wild.run` on scripts in the styles that people write, none of which knows of fusionzoo."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import fusionzoo
from fusionzoo import wild
from fusionzoo.errors import FusionZooError, FusionZooWarning, ModalityError, OptionError, PatchError, TrainingError
from fusionzoo.wild.stand_ins import Finder

SCRIPTS = Path(__file__).with_name("scripts")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FusionZooWarning)  # which layout is assumed
        yield


def digests() -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in SCRIPTS.rglob("*") if p.is_file()}


def go(name: str, *args: str, fusion: Any = "gmu", **options: Any) -> wild.Result:
    return wild.run(SCRIPTS / f"{name}.py", args, fusion=fusion, say=lambda message: None, **options)


def groups_of(optimizer: torch.optim.Optimizer, patch: Any) -> list[dict[str, Any]]:
    own = {id(p) for p in patch.parameters()}
    return [g for g in optimizer.param_groups if any(id(p) in own for p in g["params"])]


def test_a_script_with_argparse(capsys: pytest.CaptureFixture[str]) -> None:
    before = digests()
    bare = go("argparse_train", "--epochs", "2", "--lr", "0.05", fusion=None)
    done = go("argparse_train", "--epochs", "2", "--lr", "0.05", "--debug", fusion="lmam")
    assert bare.patch is None
    assert bare.patched == 0
    assert "epoch 1" in done.output
    assert "debug True" in done.output
    assert done.output in capsys.readouterr().out
    # The call that found the model ran patched and changed nothing; from the second on it trains.
    assert done.namespace["losses"][0] == bare.namespace["losses"][0]
    assert done.namespace["losses"][1:] != bare.namespace["losses"][1:]
    patch = done.patch
    assert patch is not None
    assert type(patch.fusion).__name__ == "LMAM"
    assert patch.calls == 6
    assert patch.host is done.namespace["model"]
    (group,) = groups_of(done.namespace["optimizer"], patch)
    assert group["lr"] == 0.05
    assert len(group["params"]) == len(list(patch.parameters()))
    assert [m.call for m in done.growth.measures] == [1, 2, 3, 4, 5, 6]
    assert done.growth.measures[0].share == 0
    assert done.growth.measures[-1].share > 0
    assert done.growth.measures[-1].projection > 0
    assert digests() == before


def test_none_runs_the_script_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["argparse_train.py"])
    runpy.run_path(str(SCRIPTS / "argparse_train.py"), run_name="__main__")
    plain = capsys.readouterr().out
    assert go("argparse_train", fusion="none").output == plain


def test_paths_and_devices_that_are_written_into_the_script() -> None:
    Path("data").mkdir()
    torch.save(runpy.run_path(str(SCRIPTS / "toy.py"))["rows"](), "data/features.pt")
    done = go("hard_coded", device="cpu")
    assert done.output.split() == ["cpu", "cpu", "3.0"]
    assert done.stand_ins == ["ipdb", "comet_ml", "sentence_transformers"]
    assert done.patch is not None
    (group,) = groups_of(done.namespace["optimizer"], done.patch)
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.001)
    assert all(p.grad is not None for p in done.patch.parameters())
    # What was used at import says what is missing when it is called.
    with pytest.raises(fusionzoo.MissingDependency, match="sentence_transformers"):
        done.namespace["SentenceTransformer"]("all-MiniLM-L6-v2")
    # And everything is as it was.
    import numpy as np

    assert not {"ipdb", "comet_ml", "toy"} & set(sys.modules)
    assert "float" not in vars(np)
    assert torch.zeros(1).cuda.__module__ != "fusionzoo.wild.devices"


@pytest.mark.parametrize("kind", ["lambda", "one-cycle", "plateau", "cyclic", "sequential", "cosine", "hand"])
def test_schedulers_that_were_built_before(kind: str) -> None:
    bare, done = go("schedulers", kind, fusion=None), go("schedulers", kind)
    rates = done.namespace["rates"]
    assert rates[:2] == bare.namespace["rates"]
    assert len(rates) == 3
    own = groups_of(done.namespace["optimizer"], done.patch)
    assert own == [done.namespace["optimizer"].param_groups[2]]
    assert rates[2] == rates[1]  # follows the group of the encoders, which holds most of the model
    assert done.growth.measures[-1].projection > 0


def test_data_parallel_early_stopping_and_states_with_and_without_the_fusion() -> None:
    done = go("parallel")
    space, patch = done.namespace, done.patch
    assert patch is not None
    assert patch.host is space["model"].module
    assert space["again"] == space["best_loss"]
    assert any(patch.name in k for k in space["best"])
    assert not any(patch.name in k for k in space["initial"])
    # A state without the fusion left it as it was.
    own = {k: v for k, v in space["best"].items() if patch.name in k}
    now = space["model"].state_dict()
    assert own
    assert all(torch.equal(now[k], v) for k, v in own.items())
    assert torch.equal(now["module.out.weight"], space["initial"]["out.weight"])
    assert any(patch.name in n for n, _ in space["twin"].named_parameters())


def test_a_state_that_lacks_a_part_of_the_fusion_is_still_refused() -> None:
    done = go("folds")
    model = done.namespace["model"]
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("out.joined.bias")}
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)


def test_folds_that_build_the_model_anew_and_test_another() -> None:
    done = go("folds")
    # Each fold's model, and each one into which the best state was loaded.
    assert done.patched == 6
    assert done.namespace["same"] == [True, True]
    assert sum("joined Adam" in m for m in done.messages) == 3
    assert done.patch is not None
    assert done.patch.host is done.namespace["tester"]


def test_a_loop_like_lightnings() -> None:
    done = go("lightning_like")
    assert done.patch is not None
    assert done.patch.calls == 3
    assert type(done.patch.site).__name__ == "Site"
    assert done.growth.measures[-1].share > 0


def test_several_models_are_a_question() -> None:
    with pytest.raises(PatchError, match=r"several models: Teacher.*and Net.*--model Teacher, or --model Net"):
        go("several")
    done = go("several", model="Net")
    assert done.patch is not None
    assert type(done.patch.host).__name__ == "Net"
    assert done.patch.calls == 2
    with pytest.raises(
        PatchError, match=r"'Nte': no class of that name is defined; did you mean 'Net'.*--model Teacher"
    ):
        go("several", model="Nte")
    said: list[str] = []
    with pytest.raises(PatchError, match=r"'Bilinear' that an optimizer trains .* writes it: Teacher, Net"):
        wild.run(SCRIPTS / "several.py", fusion="gmu", model="Bilinear", say=said.append)
    assert "no optimizer holds a Bilinear yet; Teacher, Net, Centres go on" in said[0]


def test_a_model_that_nobody_has_is_told_with_the_first_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PatchError, match=r"no module of the class 'Transformer_': .* --model Net, for instance"):
        go("argparse_train", "--epochs", "2", model="Transformer_")
    assert "epoch" not in capsys.readouterr().out


def test_the_proof_can_be_left_out() -> None:
    done = go("argparse_train", "--epochs", "1", prove=False)
    assert done.patch is not None
    assert done.patch.calls == 3
    assert "prove=False" in str(done.patch.proof)


@pytest.mark.parametrize(
    "kind", ["swa", "frozen", *(pytest.param(k, marks=pytest.mark.slow) for k in ("ema", "deepcopy"))]
)
def test_an_average_of_weights_from_before_has_the_fusion_too(kind: str) -> None:
    """As if the fusion had been in the model when the average was set up: the formulas say what the average is then."""
    done = go("averages", kind)
    model, average, steps = (done.namespace[k] for k in ("model", "average", "history"))
    assert done.patch is not None
    assert any("a copy of Whole that was there before" in m for m in done.messages)
    assert not any("averages weights" in m for m in done.messages)
    names = [n for n, _ in model.named_parameters()]
    assert any("fusionzoo" in n for n in names)
    assert names == [n.removeprefix("module.") for n, _ in average.named_parameters()]
    for name, found in zip(names, average.parameters(), strict=True):
        kept = [state[name] for state in steps if name in state]
        wanted = kept[0]
        for i, p in enumerate(kept[1:], start=1):
            wanted = wanted + (p - wanted) / (i + 1) if kind == "swa" else 0.5 * wanted + 0.5 * p
        torch.testing.assert_close(found.detach(), wanted)
    assert {p.requires_grad for p in average.parameters()} == {kind != "frozen"}


def test_averages_that_cannot_have_the_fusion_are_told() -> None:
    for kind, what in (("dict", "a dict by name"), ("list", "a list in order")):
        said = go("averages", kind).messages
        assert any(f"weights of Whole from before the fusion ({what})" in m for m in said), said
    with pytest.raises(PatchError, match=r"averages the weights of Whole \(AveragedModel\), which has a fusion"):
        go("averages", "other")


def test_parts_that_the_script_calls_one_by_one() -> None:
    with pytest.raises(PatchError, match=r"several modules that the script calls one by one: Encoder \(.*--model Head"):
        go("by_parts")  # which swallows the error
    with pytest.raises(ModalityError):
        go("by_parts", model="Head")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no-optimizer", "without making an optimizer"),
        ("eval", "before a model was called"),
        ("once", "through Net.forward, once only"),
    ],
)
def test_a_call_that_never_comes(how: str, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        go("endings", how)
    assert go("endings", how, fusion=None).status == 0


def test_how_a_script_ends() -> None:
    assert go("endings", "exit").status == 5
    assert go("endings", "words").status == "no data"
    with pytest.raises(ValueError, match="the script's own"):
        go("endings", "raise")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        go("endings", "missing")
    before = list(sys.argv), list(sys.path), sys.modules["__main__"]
    done = go("endings", "trained")
    assert done.output.split() == [
        f"['{SCRIPTS / 'endings.py'}',", "'trained']", str(SCRIPTS), "__main__", "endings.py", os.getcwd()
    ]  # fmt: skip
    assert (list(sys.argv), list(sys.path), sys.modules["__main__"]) == before


def test_an_input_that_the_script_has_joined() -> None:
    done = go("joined", fusion="lmam", input="U", widths={"text": 5, "audio": 4}, layout="(T, B, d)")
    assert done.patch is not None
    assert isinstance(done.patch.site, fusionzoo.InputSite)
    assert done.patch.site.widths == {"text": 5, "audio": 4}
    assert done.patch.layer.plan.layout == "(T, B, d)"
    assert done.growth.measures[-1].share > 0
    with pytest.raises(OptionError, match="go together"):
        go("joined", input="U")


def test_seeds_that_are_written_into_the_script() -> None:
    bare, same, again, other = (go("seeded", fusion=None, seed=s).namespace for s in (None, 0, 1, 1))
    assert same["numbers"] == bare["numbers"]
    assert again["numbers"] == other["numbers"]
    assert not set(again["numbers"]) & set(bare["numbers"])
    assert go("seeded", seed=1).namespace["numbers"] == again["numbers"]


def test_site_options_report_and_a_file_that_loads() -> None:
    done = go("folds", fusion=("gmu", {}), site=0, save="fusion.safetensors", report="report", mode="replace")
    assert done.patch is not None
    report = json.loads(Path("report/report.json").read_text())
    assert report["patched"] == 6
    assert report["host"] == "Net"
    assert report["asked"]["mode"] == "replace"
    assert Path("report/output.txt").read_text() == done.output
    assert "fusion was saved" in Path("report/report.txt").read_text()
    model = done.namespace["Net"]()
    patch = fusionzoo.load_patch(model, "fusion.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(patch.parameters(), done.patch.parameters(), strict=True))
    with pytest.raises(PatchError, match="there is no site 7"):
        go("folds", site=7)


def test_what_is_refused_before_the_script_runs() -> None:
    with pytest.raises(PatchError, match=r"no script 'absent\.py'"):
        wild.run("absent.py", fusion="lmam")
    with pytest.raises(TrainingError, match="not a device"):
        go("folds", device="nowhere")
    for wrong, message in (
        ({"fusion": "lmamm"}, "there is no fusion 'lmamm'; did you mean 'lmam'"),
        ({"fusion": ("gmu", {"hiden": 3})}, "gmu has no option 'hiden'"),
        ({"fusion": "lmam", "rnk": 3}, "lmam has no option 'rnk'; did you mean 'rank'.* --option NAME=VALUE"),
        ({"fusion": 3}, "fusion must be a name"),
        ({"fusion": None, "rank": 3}, r"options of a fusion \(rank\) without one; name it: --fusion NAME"),
        ({"mode": "residul"}, "mode='residul' is not one of"),
        ({"layout": "(T, B)"}, "layout"),
    ):
        with pytest.raises(FusionZooError, match=message):
            go("endings", "raise", **wrong)  # which would raise ValueError at once


def test_what_stands_in_for_a_package(tmp_path: Path) -> None:
    said: list[str] = []
    with Finder(said.append) as finder:
        # As a library would look, from a file that is installed.
        found = eval(compile("__import__('importlib.util').util.find_spec('comet_ml')", torch.__file__, "eval"))
        assert found is None
        import wandb  # type: ignore[import-not-found]
        import wandb.sdk  # type: ignore[import-not-found]

        assert finder.names == ["wandb"]
        assert len(said) == 1

        @wandb.profile
        def function(run: wandb.Run | None = None) -> int:
            return 3

        class Derived(wandb.Callback):
            pass

        assert function() == 3
        assert Derived() is not None
        assert not isinstance(3, wandb.Run)
        with wandb.init(project="x") as run:
            run.config.rate = 3
            run["x"] = run.summary["y"]
            assert list(run.history()) == []
        with pytest.raises(fusionzoo.MissingDependency, match="wandb"):
            float(wandb.config.rate)
        with pytest.raises(ModuleNotFoundError):
            import an_unknown_package  # noqa: F401
    assert "wandb" not in sys.modules


def test_what_scripts_ask_of_torch_scatter() -> None:
    with Finder(lambda message: None):
        from torch_scatter import scatter, scatter_add, scatter_max, scatter_mean  # type: ignore[import-not-found]
    src, index = torch.tensor([[1.0, 2.0], [3.0, 5.0], [-7.0, 11.0]]), torch.tensor([0, 2, 0])
    assert scatter_add(src, index, dim=0).tolist() == [[-6, 13], [0, 0], [3, 5]]
    assert scatter_mean(src, index, dim=0, dim_size=4).tolist() == [[-3, 6.5], [0, 0], [3, 5], [0, 0]]
    assert scatter(src, index, dim=0, reduce="max").tolist() == [[1, 11], [0, 0], [3, 5]]
    assert scatter(src, index, dim=0, reduce="mul").tolist() == [[-7, 22], [1, 1], [3, 5]]
    assert scatter_add(src, torch.tensor([1, 1])).tolist() == [[0, 3], [0, 8], [0, 4]]
    assert scatter_add(src, index, 0, torch.ones(3, 2)).tolist() == [[-5, 14], [1, 1], [4, 6]]
    weight = src.clone().requires_grad_()
    scatter_add(weight, index, dim=0)[0].sum().backward()
    assert weight.grad.tolist() == [[1, 1], [0, 0], [1, 1]]
    with pytest.raises(fusionzoo.MissingDependency, match="scatter_max"):
        scatter_max(src, index)


def test_rows_are_appended_to_a_table_as_they_were() -> None:
    pd = pytest.importorskip("pandas")  # where the script has it

    from fusionzoo.wild.removed import put_back

    with put_back():
        assert pd.DataFrame({"a": [1]}).append({"a": 2}, ignore_index=True)["a"].tolist() == [1, 2]
    assert "append" not in vars(pd.DataFrame)


def test_names_and_manners_that_libraries_have_dropped() -> None:
    import numpy as np

    from fusionzoo.wild.removed import put_back

    torch.manual_seed(0)
    logits = torch.randn(4, 3).log_softmax(-1)
    target, mask = torch.randn(4, 3).softmax(-1), torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    kinds = ("none", "sum", "mean", "batchmean")
    today = [torch.nn.functional.kl_div(logits, target, reduction=k) for k in kinds]
    with put_back():
        assert np.float is float  # type: ignore[attr-defined]
        from torch._six import inf, string_classes  # type: ignore[import-not-found]
        from torch_geometric.data import DataLoader
        from torch_geometric.loader import DataLoader as Loader
        from torch_geometric.nn.pool.topk_pool import topk  # type: ignore[attr-defined]

        assert (inf, DataLoader, callable(topk)) == (float("inf"), Loader, True)
        assert isinstance("words", string_classes)
        target.requires_grad_()
        then = [torch.nn.functional.kl_div(logits, target, reduction=k) for k in kinds]
        for a, b in zip(today, then, strict=True):
            torch.testing.assert_close(a, b)
        torch.nn.KLDivLoss(reduction="sum")(logits, target * mask).backward()
        torch.testing.assert_close(target.grad, mask * (target.detach().log() + 1 - logits))
        optimizer = torch.optim.SGD([target], lr=0.1)
        torch.optim.lr_scheduler.StepLR(optimizer, 1, verbose=True)  # type: ignore[call-arg]
    assert "torch._six" not in sys.modules


def test_whole_models_of_others_are_still_refused(tmp_path: Path) -> None:
    from fusionzoo.wild.removed import put_back

    torch.save(torch.nn.Linear(2, 2), tmp_path / "theirs.pt")
    os.utime(tmp_path / "theirs.pt", (1, 1))
    with put_back(torch.device("cpu")):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "own.pt")
        assert isinstance(torch.load(tmp_path / "own.pt"), torch.nn.Linear)
        with open(tmp_path / "own.pt", "rb") as file:
            assert isinstance(torch.load(file, map_location="cuda"), torch.nn.Linear)
        with pytest.raises(pickle.UnpicklingError) as refused:
            torch.load(tmp_path / "theirs.pt")
        assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in refused.value.__notes__[0]


def test_a_model_that_an_adapter_knows(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    shutil.copy(Path(__file__).parents[2] / "adapters" / "stand_ins.py", tmp_path)
    script.write_text(
        """
import torch
from stand_ins import MultiEMO  # stands for the repository's own model

model, args, kwargs = MultiEMO.small()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
model.train()
for epoch in range(3):
    optimizer.zero_grad()
    out = model(*args, **kwargs)
    out = out if isinstance(out, (tuple, list)) else [out]
    sum(o.float().pow(2).mean() for o in out if torch.is_tensor(o)).backward()
    optimizer.step()
"""
    )
    done = wild.run(script, fusion="lmam", say=lambda message: None)
    known = fusionzoo.patch(done.namespace["MultiEMO"].small()[0], "lmam", dry_run=True)
    assert done.patch is not None
    assert done.patch.site.where == known.site.where
    assert done.patch.layer.context is known.layer.context is not None
    assert any("an adapter knows" in m for m in done.messages)
    assert done.patch.calls == 3
    assert done.growth.measures[-1].share > 0


@pytest.mark.parametrize("how", ["forward", "loss", "inside"])
def test_a_model_that_is_trained_through_a_method(how: str) -> None:
    bare, done = go("methods", how, fusion=None), go("methods", how)
    patch, model = done.patch, done.namespace["model"]
    assert patch is not None
    assert patch.host is model
    assert patch.site.path == ("net" if how == "inside" else "")
    assert any("not called" in m for m in done.messages)
    assert patch.calls == 3 + 1  # all but the first step, and the evaluation in the end
    assert done.namespace["losses"][:2] == bare.namespace["losses"][:2]
    assert done.namespace["losses"][2:] != bare.namespace["losses"][2:]
    assert done.namespace["logits"].shape == (12, 3)
    twin = done.namespace["twin"]
    assert any(patch.name in n for n, _ in twin.named_parameters())


# -- in processes of their own -------------------------------------------------------------------------------------------


def command(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fusionzoo", "run", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_the_command_with_workers_and_the_scripts_own_status() -> None:
    done = command("--fusion", "gmu", "--save", "p.safetensors", SCRIPTS / "workers.py")
    assert done.returncode == 3, done.stderr
    assert done.stdout.split() == ["all", "trained", "True"]
    assert done.stderr.count("joined SGD") == 2
    assert "share of the joined tensor grew" in done.stderr
    assert Path("p.safetensors").is_file()


@pytest.mark.slow
def test_the_command_with_the_trainer_of_transformers() -> None:
    done = command("--fusion", "gmu", "--device", "cpu", SCRIPTS / "trainer.py", "out")
    assert done.returncode == 0, done.stderr
    assert "trained 6" in done.stdout
    assert "joined AdamW" in done.stderr
    assert "grew from 0 to" in done.stderr


@pytest.mark.slow
def test_the_command_shows_the_scripts_errors_and_ours() -> None:
    done = command("--fusion", "gmu", SCRIPTS / "endings.py", "raise")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert "session.py" not in done.stderr
    done = command("--fusion", "gmu", SCRIPTS / "several.py")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("fusionzoo: the script trains several models")
    done = command("--fusion", "gmu", SCRIPTS / "argparse_train.py", "--debug", "--epochs", "1")
    assert "debug True" in done.stdout
