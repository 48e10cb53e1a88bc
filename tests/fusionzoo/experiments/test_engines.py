"""Engines: one protocol under all of them, no number depends on it, and a worker that is killed changes none."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from dying import Killed

from fusionzoo.errors import ConfigError, DataError, MissingDependency
from fusionzoo.experiments import processes
from fusionzoo.experiments.engines import Engine
from fusionzoo.experiments.grid import compare
from fusionzoo.experiments.jobs import Call, Needs, Reading
from fusionzoo.experiments.runner import Task, run_all
from fusionzoo.runs.models import resolved

SUPPORT = str(Path(__file__).parents[1] / "support")


class AtOnce:
    """An executor that runs what it is given, through pickle, in this process."""

    def __init__(self, losing: int = 0):
        self.losing, self.submitted = losing, 0

    def submit(self, function):
        self.submitted += 1
        future: Future = Future()
        if self.submitted <= self.losing:
            future.set_exception(OSError("the machine is gone"))
        else:
            future.set_result(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))())))
        return future


@pytest.fixture(scope="module")
def tasks(make_config, corpus):
    """Makes the same two runs in any folder."""

    def make(folder: Path, view=None) -> list[Task]:
        config = resolved(make_config(epochs=6, fusion="sum"), corpus)
        runs = [Task(config.replaced(training__seed=s), folder / f"seed{s}") for s in (0, 1)]
        if view is not None:
            runs[0] = Task(runs[0].config, runs[0].folder, view=view)
        return runs

    return make


@pytest.fixture(scope="module")
def expected(tasks, tmp_path_factory, corpus):
    """What they come to, one after the other in this process."""
    folder = tmp_path_factory.mktemp("here")
    run_all(tasks(folder), corpus, quiet=True)
    return numbers(folder)


def numbers(folder: Path) -> dict[str, bytes]:
    names = ("predictions.csv", "model.safetensors", "confusion.csv")
    return {f"{f.parent.name}/{f.name}": f.read_bytes() for n in names for f in sorted(folder.glob(f"seed*/{n}"))}


def test_any_executor_and_what_it_loses_is_handed_in_again(tmp_path, make_config, corpus):
    executor = AtOnce(losing=2)
    config = resolved(make_config(epochs=1), corpus)
    engine = Engine("executor", executor=executor, readings={"": config.data})
    there = run_all([Task(config, tmp_path / "there")], corpus, engine=engine, quiet=True)
    here = Task(config, tmp_path / "here").run(corpus)
    assert there.failed == {}
    assert executor.submitted == 3
    assert there.results["there"]["test"] == here.result["test"]
    task = Task(make_config(epochs=1), tmp_path / "never")
    never = run_all([task], corpus, engine=Engine("executor", executor=AtOnce(losing=9)), quiet=True)
    assert never.failed == {"never": "OSError: the machine is gone"}
    with ThreadPoolExecutor(1) as closed:
        pass
    never = run_all([task], corpus, engine=Engine("executor", executor=closed), quiet=True)
    assert "cannot schedule new futures" in never.failed["never"]


def test_workers_read_the_data_and_check_them(tmp_path, make_config, corpus):
    (task,) = [Task(resolved(make_config(epochs=1), corpus), tmp_path / "run")]
    data = make_config().data
    wrong = Reading(data, "0" * 64)
    ended = Call(task, wrong)()
    assert isinstance(ended, ConfigError)
    assert "not the same data on the worker" in str(ended)
    data.source = "nowhere.npz"
    data.options = {}
    assert isinstance(Call(task, Reading(data, "0" * 64))(), DataError)


def test_engines_are_read_and_refused_in_words(make_config, corpus, monkeypatch):
    config = make_config()

    def read(given, jobs=None):
        return Engine.read(given, jobs, [config], {"": corpus})

    with pytest.raises(ConfigError, match="there is no engine 'slrum'; did you mean 'slurm'"):
        read("slrum")
    with pytest.raises(ConfigError, match="takes no options, not partition"):
        read({"name": "local", "partition": "gpu"})
    with pytest.raises(ConfigError, match="no 'submit'"):
        read(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be 1 or more"):
        read("local", 0)
    assert read({"name": "slurm", "timeout_min": 60}).options == {"timeout_min": 60}
    assert read("ray", "auto").workers is None
    assert str(read("local")) == "one at a time"
    monkeypatch.setattr(processes, "cores", lambda: 6)
    monkeypatch.setattr(processes, "gpus", list)
    assert processes.room(Needs(cores=2), {}) <= 3
    monkeypatch.setattr(processes, "gpus", lambda: ["0", "1", "2", "3"])
    assert processes.room(Needs(cores=1, gpu=True), {"": corpus}) == 4
    assert Engine.read("local", "auto", [config.replaced(training__device="cuda:0")], {}).workers == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="start without `accelerate launch`"):
        read("ray")
    assert read("local", "auto").workers == 1


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_without_the_package_it_says_what_to_install(tmp_path, make_config, corpus, monkeypatch, engine, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingDependency, match=rf'pip install "fusionzoo\[{engine}\]"'):
        compare(make_config(epochs=1), tmp_path, seeds=1, engine=engine, corpus=corpus, quiet=True)


def test_slurm_that_is_not_there_is_refused(tmp_path, make_config, corpus, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="--engine slurm cannot be set up"):
        compare(make_config(epochs=1), tmp_path, seeds=1, engine="slurm", corpus=corpus, quiet=True)


@pytest.mark.slow
def test_a_process_that_is_killed_changes_no_number(tasks, expected, tmp_path, corpus, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    view = Killed(tmp_path / "killed", tmp_path / "seed0")
    done = run_all(tasks(tmp_path, view), corpus, engine=Engine(workers=2), quiet=True)
    assert (tmp_path / "killed").exists()
    assert done.failed == {}
    assert numbers(tmp_path) == expected


@pytest.mark.slow
def test_a_comparison_on_an_executor_of_concurrent_futures(tmp_path, make_config):
    settings = {"fusions": ["concat", "sum"], "seeds": 1, "quiet": True}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        there = compare(make_config(epochs=1), tmp_path / "there", engine=pool, **settings)
    here = compare(make_config(epochs=1), tmp_path / "here", **settings)
    assert there.failed == here.failed == {}
    assert [r.per_seed for r in there.rows] == [r.per_seed for r in here.rows]


@pytest.mark.slow
def test_a_worker_of_ray_that_is_killed_changes_no_number(tasks, expected, tmp_path, corpus, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    view = Killed(tmp_path / "killed", tmp_path / "seed0")
    options = {"address": "local", "num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    done = run_all(tasks(tmp_path, view), corpus, engine=Engine("ray", options), quiet=True)
    assert (tmp_path / "killed").exists()
    assert done.failed == {}
    assert numbers(tmp_path) == expected


@pytest.mark.slow
def test_submitits_local_executor(tasks, expected, tmp_path, corpus):
    pytest.importorskip("submitit")
    options = {"cluster": "local", "timeout_min": 10}
    done = run_all(tasks(tmp_path), corpus, engine=Engine("slurm", options), quiet=True, folder=tmp_path)
    assert done.failed == {}
    assert numbers(tmp_path) == expected
    assert any((tmp_path / "slurm").iterdir())


@pytest.mark.slow
def test_a_process_that_dies_every_time_fails_alone(tasks, tmp_path, corpus, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    view = Killed(tmp_path / "killed", tmp_path / "seed0", always=True)
    done = run_all(tasks(tmp_path, view), corpus, engine=Engine(workers=2), quiet=True)
    assert "ended without a word 3 times" in done.failed["seed0"]
    assert list(done.results) == ["seed1"]
