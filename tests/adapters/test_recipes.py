"""The published recipes: every key and option of every protocol is one that exists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fusionzoo
from fusionzoo.errors import ConfigError, FusionZooError, UnknownNameError
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.recipes import PROTOCOLS, Recipe, load_recipe

NAMES = fusionzoo.names("recipe")


def test_every_yaml_of_the_folder_is_installed():
    import fusionzoo_adapters.recipes as package

    files = {p.stem for p in Path(package.__file__).parent.glob("*.yaml")}
    assert files == set(NAMES), (
        "a recipe without an entry point, or the reverse: see pyproject.toml, then pip install -e ."
    )
    hosts = ("text-cnn", "bc-lstm", "dialogue-rnn", "dialogue-gcn", "mmgcn")
    wanted = {f"lmam-{h}-{d}" for h in hosts for d in ("iemocap", "meld")} | {"multiemo-iemocap", "multiemo-meld"}
    assert wanted <= files


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_mistyped(name):
    recipe = load_recipe(name)
    recipe.check()
    assert recipe.name == name
    for words in (recipe.summary, recipe.system, recipe.paper, recipe.features):
        assert words
    assert "@" in recipe.code
    assert set(recipe.protocols) == set(PROTOCOLS)
    assert {"protocol", "flaw", "source", "scores"} <= set(recipe.published)


@pytest.mark.parametrize("name", NAMES)
def test_the_honest_protocol_never_chooses_on_the_test_split(name):
    recipe = load_recipe(name)
    for variant in (None, *recipe.variants):
        config = RunConfig.from_sources(recipe=recipe.resolve("honest", variant))
        assert config.training.selection == "dev"
        assert recipe.resolve(None, variant) == recipe.resolve("honest", variant)


def test_the_card_tells_the_number_its_protocol_and_its_flaw():
    card = str(fusionzoo.card("multiemo-iemocap", "recipe"))
    for words in ("72.84", "best test weighted F1", "chosen on the test split", "protocol honest", "EmoBERTa"):
        assert words in card


GOOD = {"host": {"name": "bc-lstm"}, "protocols": {"published": {"training": {"selection": "test"}}}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hots": {}}, "did you mean 'host'"),
        ({"training": {"epohcs": 3}}, "did you mean 'epochs'"),
        ({"host": {"name": "bc-lstm", "hiden": 3}}, "did you mean 'hidden'"),
        ({"fusion": {"name": "lmma"}}, "did you mean 'lmam'"),
        ({"protocols": {"publishd": {}}}, "did you mean 'published'"),
        ({"protocols": {"published": {"trainin": {}}}}, "did you mean 'training'"),
        ({"protocols": {"honest": {"training": {"selction": "dev"}}}}, "did you mean 'selection'"),
        ({"variants": {"small": {"host": {"hiden": 1}}}, **GOOD}, "did you mean 'hidden'"),
        ({"published": {"score": 1}}, "did you mean 'scores'"),
        ({"published": {"scores": {"weighted_f1": 0.7284}}}, "percent"),
        ({"published": {"scores": {"f1": 70}}}, "weighted_f1"),
        ({"data": 3}, "mapping"),
    ],
)
def test_a_mistake_is_named(values, words):
    with pytest.raises(FusionZooError, match=words):
        Recipe.from_mapping(values, "mine").check()


def test_protocols_and_variants_change_sections():
    recipe = Recipe.from_mapping(
        {**GOOD, "training": {"epochs": 3}, "variants": {"long": {"training": {"epochs": 9}}}}, "r"
    )
    assert recipe.resolve()["training"] == {"epochs": 3}
    assert recipe.resolve("published", "long")["training"] == {"epochs": 9, "selection": "test"}
    with pytest.raises(UnknownNameError, match="did you mean 'long'"):
        recipe.resolve(variant="lonk")
    with pytest.raises(ConfigError, match="did you mean 'honest'"):
        recipe.resolve("honset")
    with pytest.raises(ConfigError, match="says nothing"):
        Recipe.from_mapping({"training": {}}, "plain").resolve("published")
    with pytest.raises(UnknownNameError, match="did you mean 'multiemo-meld'"):
        load_recipe("multiemo-mled")


def test_looking_at_a_recipe_imports_no_torch():
    code = (
        "import sys, fusionzoo\n"
        "str(fusionzoo.card('multiemo-iemocap', 'recipe'))\n"
        "fusionzoo.get('multiemo-iemocap', kind='recipe').resolve('published')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def host_of(name: str, dims: dict[str, int], classes: int, speakers: int, **options):
    config = RunConfig.from_sources(recipe=load_recipe(name).resolve())
    return fusionzoo.get(config.host.name, kind="host")(
        dims,
        num_classes=classes,
        num_speakers=speakers,
        fusion=(config.fusion.name, config.fusion.options),
        placement=config.host.placement,
        **config.host.options,
        **options,
    )


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_recipes_build_models_of_the_published_size():
    """At the published features' widths; parts that the published code builds and never runs are not here."""
    dims = {"text": 768, "audio": 512, "visual": 1000}
    model = host_of("multiemo-iemocap", dims, 6, 2)
    assert (parameters(model), parameters(model.fusion.stacks)) == (29_670_918, 18_961_920)
    assert parameters(host_of("multiemo-meld", dims, 7, 9).fusion.stacks) == 6_320_640
    dims = {"text": 4 * 1024, "audio": 1582, "visual": 342}
    for host in ("text-cnn", "bc-lstm", "dialogue-rnn"):
        model = host_of(f"lmam-{host}-iemocap", dims, 6, 2, text_views=4)
        assert parameters(model.fusion) == 512**2 + 512, host
    assert parameters(model) == 9_403_710  # the official DialogueRNN
