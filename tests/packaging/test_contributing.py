"""CONTRIBUTING's check lists are followed, step by step, on a copy of the repository; then what would fail otherwise is run."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fusionzoo import scaffold

ROOT = Path(__file__).resolve().parents[2]
LISTS = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = ("fusionzoo", "plugins", "adapters", "tests", "docs", "benchmarks")
FILES = ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "constraints.txt", "LICENSE")
WORDS = re.compile(r"`([^`\n]+)`")

pytestmark = pytest.mark.skipif(not (ROOT / "plugins").is_dir(), reason="needs the repository, not a wheel")


def section(title: str) -> str:
    """The check list under a heading."""
    found = re.search(rf"^## {re.escape(title)}: check list\n(.*?)(?=^## |\Z)", LISTS, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


@pytest.mark.parametrize("title", re.findall(r"^## (.+): check list$", LISTS, re.MULTILINE))
def test_what_a_list_names_is_there(title: str):
    """Files, folders, groups of entry points and scripts; `my_fusion.py` and the like are what one writes."""
    for word in WORDS.findall(section(title)):
        path = word.split(" ")[1 if word.startswith("python ") else 0]
        if "/" in path and "my" not in path:
            assert any((ROOT / where / path).exists() for where in ("", "adapters/fusionzoo_adapters")), word
        if word.startswith("[project.entry-points"):
            assert word in (ROOT / "pyproject.toml").read_text(encoding="utf-8"), word


class Copy:
    """A copy of the repository that counts as installed, and a package of `fusionzoo new` to take a module and a test from."""

    def __init__(self, folder: Path):
        self.root, self.site, self.folder = folder / "repository", folder / "site", folder
        ignored = shutil.ignore_patterns("__pycache__", "*.npz", ".*")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        for name in FILES:
            shutil.copy(ROOT / name, self.root / name)
        self.install()

    def install(self) -> None:
        """What `pip install -e .` does: the metadata follow pyproject.toml."""
        project = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = self.site / "fusionzoo-0.1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fusionzoo\nVersion: 0.1.0\n")
        groups = {**project["entry-points"], "console_scripts": project["scripts"]}
        lines = [
            f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """A Python command in the copy."""
        path = [self.site, self.root, self.root / "plugins", self.root / "adapters"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("FUSIONZOO_", "PYTEST_"))}
        env |= {"PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        words = [sys.executable, *map(str, command)]
        return subprocess.run(words, cwd=self.root, env=env, capture_output=True, text=True, check=False)

    def step(self, *command: object) -> None:
        """A command of a list, which ends well."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"

    def tests(self, *arguments: object) -> None:
        """Tests that pass, and are there."""
        self.step("-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", *arguments)

    def add_line(self, file: str, after: str, line: str) -> None:
        """A line after the first that ends with some words."""
        path = self.root / file
        text = path.read_text(encoding="utf-8")
        assert f"{after}\n" in text, f"{file}: {after}"
        path.write_text(text.replace(f"{after}\n", f"{after}\n{line}\n", 1), encoding="utf-8")

    def add_module(self, kind: str, name: str, place: str, package: str, **changes: str) -> str:
        """The module that `fusionzoo new` writes, at the place that the list names; gives its class's name."""
        new = scaffold.create(kind, name, self.folder)
        module = next((new / "src").glob("*/__init__.py"))
        text = module.read_text(encoding="utf-8")
        for old, better in changes.items():
            text = text.replace(CHANGES[old], better)
        target = self.root / place
        target.write_text(text, encoding="utf-8")
        self.add_line(
            "pyproject.toml", f'[project.entry-points."fusionzoo.{kind}s"]', f'{name} = "{package}.{target.stem}"'
        )
        self.install()
        return next(n.name for n in ast.parse(text).body if isinstance(n, ast.ClassDef))


#: What a template leaves to the author.
CHANGES = {
    "diagram": "    api=1,\n",
    "count": "= (2, None)",
    "build": "        self.fusion = self.make_fusion(self.dims, hidden)\n",
    "fuse": "        fused = self.fusion.fuse(features, mask, attention=self.keep_attention)\n",
}
#: One modality, of which our hosts build no fusion.
ALONE = {
    "count": "= (1, None)",
    "build": """        if len(self.dims) == 1:
            del self.fusion_like
            self.alone = nn.Linear(*self.dims.values(), hidden)
        else:
            self.fusion = self.make_fusion(self.dims, hidden)
""",
    "fuse": """        if len(self.dims) == 1:
            (x,) = features.values()
            fused = fusionzoo.Fused(self.alone(x) * batch.mask.unsqueeze(-1))
        else:
            fused = self.fusion.fuse(features, mask, attention=self.keep_attention)
""",
}
ALWAYS = (
    "tests/fusionzoo/test_api.py",
    "tests/packaging/test_packaging.py::test_installed_entry_points_are_those_of_pyproject",
    "tests/packaging/test_packaging.py::test_every_plugin_module_registers_exactly_the_names_that_point_to_it",
)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.mark.slow
def test_a_fusion(copy: Copy):
    diagram = '    diagram="x --> y",\n    api=1,\n'
    cls = copy.add_module("fusion", "trial", "plugins/fusionzoo_plugins/trial.py", "fusionzoo_plugins", diagram=diagram)
    assert copy.run("-m", "pytest", "-q", "tests/fusionzoo/test_api.py").returncode, "the lists are not needed?"
    (copy.root / "tests/plugins/test_trial.py").write_text(
        f"from fusionzoo_plugins.trial import {cls}\n\n\ndef test_width():\n    assert {cls}([4, 3]).out_dim == 4\n"
    )
    size = (1024 + 1 + 1582 + 1 + 342 + 1) * 512 + 3
    copy.add_line("tests/plugins/test_sizes.py", "SIZES = {", f'    "trial": {size},')
    copy.step("benchmarks/fusions.py", "--fusions=trial", "--batch=1", "--repeats=1", "--json=docs/fusions/cost.json")
    copy.step("docs/gallery.py")
    copy.step("tests/fusionzoo/test_api.py")
    copy.tests(*ALWAYS, "tests/plugins/test_trial.py", "tests/plugins/test_sizes.py")
    copy.tests("tests/docs/test_docs.py", "-k", "gallery or diagram or trial")
    copy.tests(
        "tests/fusionzoo/testing/test_builtins.py", "tests/fusionzoo/test_fusion.py", "-k", "trial", "-m", "not slow"
    )
    copy.tests("tests/adapters/test_every_host_with_every_fusion.py", "-k", "trial", "-m", "not slow")


@pytest.mark.slow
def test_a_host(copy: Copy):
    place = "adapters/fusionzoo_adapters/hosts/trial.py"
    cls = copy.add_module("host", "trial", place, "fusionzoo_adapters.hosts", **ALONE)
    (copy.root / "tests/adapters/hosts/test_trial.py").write_text(
        f"from fusionzoo.testing.batches import dialogues\nfrom fusionzoo_adapters.hosts.trial import {cls}\n\n\n"
        f"def test_shape():\n    assert {cls}({{'a': 4, 'b': 3}}, 3, 2)(dialogues([2], {{'a': 4, 'b': 3}})).logits.shape == (1, 2, 3)\n"
    )
    copy.step("docs/gallery.py")
    copy.step("tests/fusionzoo/test_api.py")
    copy.tests(*ALWAYS, "tests/adapters/hosts/test_trial.py")
    copy.tests("tests/docs/test_docs.py", "-k", "gallery")
    copy.tests("tests/fusionzoo/testing/test_builtins.py", "-k", "trial", "-m", "not slow")
    saved_and_alone = [
        p for p in (copy.root / "tests").rglob("test_*.py") if p.name in ("test_hub.py", "test_no_fusion.py")
    ]
    copy.tests(*saved_and_alone, "-k", "trial", "-m", "not slow")
    copy.tests(
        "tests/adapters/test_every_host_with_every_fusion.py",
        "-k",
        "trial and (concat or lmam or tfn)",
        "-m",
        "not slow",
    )


@pytest.mark.slow
def test_a_metric(copy: Copy, tmp_path: Path):
    copy.add_line(
        "fusionzoo/scoring/metrics.py",
        '    "wa": Metric("WA", lambda counts: counts.right.sum(-1) / counts.total),',
        '    "worst_recall": Metric("worst recall", lambda counts: counts.recall.min(-1)),',
    )
    tests = copy.root / "tests/fusionzoo/scoring/test_metrics.py"
    known = "assert scores_from_confusion([[3, 1], [0, 2]])['worst_recall'] == 0.75"
    tests.write_text(tests.read_text(encoding="utf-8") + f"\n\ndef test_the_worst_recall():\n    {known}\n")
    run = tmp_path / "run"
    copy.step(
        *("-m", "fusionzoo", "train", "--data=demo", "--fusion=concat", "--set=training.epochs=1"),
        *("--set=training.metric=worst_recall", f"--out={run}"),
    )
    assert "worst_recall" in (run / "result.json").read_text()
    assert "worst_recall" in (run / "metrics.csv").read_text()
    copy.tests("tests/fusionzoo/scoring", "tests/fusionzoo/runs", "tests/fusionzoo/reporting", "-m", "not slow")


RELEASE = '''
@pytest.fixture
def trial(tmp_path):
    """Three utterances of the release that a new reader reads."""
    (tmp_path / "trial" / "wav").mkdir(parents=True)
    rows = ["id,dialogue,index,speaker,label,split,text"]
    for i, split in enumerate(("train", "dev", "test")):
        rows.append(f"u{i},d{i},0,A,neutral,{split},Hm.")
        (tmp_path / "trial" / "wav" / f"u{i}.wav").write_bytes(b"RIFF")
    (tmp_path / "trial" / "utterances.csv").write_text("\\n".join(rows))
    return tmp_path / "trial"
'''


@pytest.mark.slow
def test_a_reader(copy: Copy):
    copy.add_module("reader", "trial", "fusionzoo/data/raw/trial.py", "fusionzoo.data.raw")
    conftest = copy.root / "tests/fusionzoo/data/raw/conftest.py"
    conftest.write_text(conftest.read_text(encoding="utf-8") + "\n" + RELEASE)
    tests = copy.root / "tests/fusionzoo/data/raw/test_raw_corpus.py"
    tests.write_text(tests.read_text(encoding="utf-8").replace("FIXTURES = {", 'FIXTURES = {"trial": "trial", ', 1))
    copy.step("tests/fusionzoo/test_api.py")
    copy.tests(*ALWAYS, "tests/fusionzoo/data/raw/test_raw_corpus.py")
    copy.tests("tests/fusionzoo/data/test_readers.py", "-k", "trial or checks")


@pytest.mark.slow
def test_an_option_of_a_command(copy: Copy):
    registry, app = copy.root / "fusionzoo/_registry.py", copy.root / "fusionzoo/cli/installed.py"
    rows = "def rows(self, kinds: tuple[str, ...] = tuple(GROUPS), long: bool = False"
    edit(registry, rows, f"{rows}, own: bool = False")
    edit(registry, "for _, providers in sorted(self.index()[check_kind(kind)].items()):",
         "for _, providers in sorted(self.index()[check_kind(kind)].items()):\n"
         "                providers = [p for p in providers if not own or p.distribution == OWN]")  # fmt: skip
    option = 'own: Annotated[bool, typer.Option("--own", help="Only fusionzoo\'s.")] = False,\n    json: Json = False,\n) -> None:'
    what = '"""List what is installed.'
    edit(app, f"json: Json = False,\n) -> None:\n    {what}", f"{option}\n    {what}")
    edit(app, "registry.rows(kinds, long=long)", "registry.rows(kinds, long=long, own=own)")
    edit(copy.root / "docs/plugins.md", "fusionzoo plugins   ", "fusionzoo plugins --own\nfusionzoo plugins   ")
    (copy.root / "tests/fusionzoo/cli/test_own.py").write_text(
        "import json\n\nfrom fusionzoo.cli import main\n\n\ndef test_own(capsys):\n"
        "    try:\n        main(['plugins', '--own', '--json'])\n    except SystemExit as done:\n        assert not done.code\n"
        "    assert {r['distribution'] for r in json.loads(capsys.readouterr().out)} == {'fusionzoo'}\n"
    )
    copy.tests("tests/fusionzoo/cli/test_own.py", "tests/fusionzoo/test_api.py", "tests/docs/test_docs.py", "-k",
               "own or api or public or commands")  # fmt: skip


def edit(path: Path, before: str, after: str) -> None:
    """One place of a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path.name}: {before}"
    path.write_text(text.replace(before, after), encoding="utf-8")
