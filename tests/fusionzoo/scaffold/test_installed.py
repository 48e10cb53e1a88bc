"""For real: `fusionzoo new`, its wheel, pip, and the plugin beside the built-in ones in every command."""

from __future__ import annotations

import json

import pytest

from fusionzoo import scaffold

pytestmark = pytest.mark.slow

SMALL = "--set training.epochs=1 --set data.dialogues=[6,3,3] --set data.length=[3,5] --set host.hidden=6 --quiet"


def plugins(environment, name):
    return [p for p in json.loads(environment("fusionzoo plugins --json")) if p["name"] == name]


def test_a_new_fusion_from_nothing_to_uninstalled(environment, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    out = environment("fusionzoo new my-fusion --author 'Ada Lovelace'", cwd=work)
    assert "fusionzoo train --data demo --fusion my-fusion" in out
    package = work / "fusionzoo-my-fusion"
    assert plugins(environment, "my-fusion") == []

    environment("pip wheel --no-deps -w dist .", cwd=package)
    environment("pip install dist/*.whl", cwd=package)
    (found,) = plugins(environment, "my-fusion")
    assert (found["distribution"], found["version"], found["status"]) == ("fusionzoo-my-fusion", "0.1.0", "available")
    code = "import fusionzoo; f = fusionzoo.get('my-fusion'); print(f.__name__, f({'text': 4, 'audio': 3}).out_dim)"
    assert environment(["python", "-c", code], cwd=work).strip() == "MyFusion 4"

    environment("pytest -q -p no:cacheprovider", cwd=package)
    environment(f"fusionzoo train --data demo --host bc-lstm --fusion my-fusion {SMALL} --out run", cwd=work)
    assert json.loads((work / "run" / "result.json").read_text())["fusion"] == "my-fusion"
    providers = json.loads((work / "run" / "model.json").read_text())["providers"]
    assert providers["fusion"] == "fusionzoo-my-fusion 0.1.0"
    compare = (
        f"fusionzoo compare --data demo --hosts bc-lstm --fusions concat,my-fusion --seeds 2 {SMALL} --out compare"
    )
    assert "my-fusion" in environment(compare, cwd=work)

    save = "import fusionzoo; fusionzoo.Host.from_pretrained('run').save_pretrained('saved', run='run')"
    environment(["python", "-c", save], cwd=work)
    load = "import fusionzoo; fusionzoo.Host.from_pretrained('saved')"
    environment(["python", "-c", load], cwd=work)

    environment("pip uninstall -y fusionzoo-my-fusion", cwd=work)
    assert plugins(environment, "my-fusion") == []
    refused = f"""
import fusionzoo
try:
    {load.partition("; ")[2]}
except fusionzoo.FusionZooError as error:
    print(error)
"""
    message = environment(["python", "-c", f"import fusionzoo\n{refused}"], cwd=work)
    assert "needs the fusion 'my-fusion' from fusionzoo-my-fusion 0.1.0, which is not installed" in message
    environment("fusionzoo doctor", cwd=work)


@pytest.mark.parametrize("kind", [k for k in scaffold.kinds() if k != "fusion"])
def test_wheels_of_the_other_kinds_are_complete(kind, environment, tmp_path):
    environment(f"fusionzoo new {kind} my-{kind}", cwd=tmp_path)
    package = tmp_path / f"fusionzoo-my-{kind}"
    environment("pip wheel --no-deps -w dist .", cwd=package)
    environment("pip install dist/*.whl", cwd=package)
    (found,) = plugins(environment, f"my-{kind}")
    assert (found["kind"], found["distribution"]) == (kind, f"fusionzoo-my-{kind}")
    environment("pytest -q -p no:cacheprovider", cwd=package)
    environment(f"pip uninstall -y fusionzoo-my-{kind}", cwd=package)
    assert plugins(environment, f"my-{kind}") == []
