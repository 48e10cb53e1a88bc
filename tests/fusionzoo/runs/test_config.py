from __future__ import annotations

import pytest
import yaml

from fusionzoo.errors import ConfigError, UnknownNameError
from fusionzoo.runs.config import RunConfig, parse_set


def test_sources_in_rising_precedence(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("training: {epochs: 7, lr: 1e-4, batch_size: 3}\nfusion: {name: gated}\n")
    config = RunConfig.from_sources(
        file, sets=["training.epochs=9"], recipe={"training": {"batch_size": 99, "clip": 0.5}}, fusion="sum", epochs=8
    )
    assert (config.training.epochs, config.training.lr, config.training.batch_size) == (9, 1e-4, 3)
    assert (config.training.clip, config.fusion.name, config.training.patience) == (0.5, "sum", 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.epoch=3", r"unknown configuration key 'training.epoch'; did you mean 'epochs'"),
        ("trainning.epochs=3", r"unknown configuration section 'trainning'; did you mean 'training'"),
        ("training.epochs=three", r"'training.epochs' takes a whole number, not 'three'"),
        ("training.epochs=1.5", r"'training.epochs' takes a whole number"),
        ("training.epochs=true", r"'training.epochs' takes a whole number"),
        ("training.epochs=0", r"must be at least 1"),
        ("training.warmup=2", r"must be between 0.0 and 1.0"),
        ("training.selection=tset", r"no choice 'tset'; did you mean 'test'"),
        ("training.deterministic=maybe", r"takes true or false"),
        ("host.hiden=3", r"unknown configuration key 'host.hiden'; did you mean 'hidden'.*takes: .*dropout"),
        ("host.hidden=wide", r"'host.hidden' takes a whole number"),
        ("host.num_classes=3", r"the trainer supplies 'num_classes' itself"),
        ("host.placement=latte", r"no placement 'latte'; did you mean 'late'"),
        ("fusion.rank=3", r"unknown configuration key 'fusion.rank'.*'concat' takes"),
        ("objective.label_smothing=0.1", r"did you mean 'label_smoothing'"),
        ("objective.also.cross-entropy.weigt=1", r"unknown configuration key 'objective.also.cross-entropy.weigt'"),
        ("data.dialoges=9", r"unknown configuration key 'data.dialoges'; did you mean 'dialogues'"),
        ("epochs=3", r"--set takes section.key=value"),
        ("training.epochs", r"--set takes section.key=value"),
        ("training.lr=[1", r"not valid YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_sources(sets=[text])


def test_unknown_plugins_are_reported_before_any_data_are_read():
    with pytest.raises(UnknownNameError, match="concat"):
        RunConfig.from_sources(fusion="concatt")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),  # a word to YAML 1.1
        ("5", 5.0),
        ("0.5", 0.5),
    ],
)
def test_numbers_as_people_write_them(text, value):
    assert RunConfig.from_sources(sets=[f"training.lr={text}"]).training.lr == value


def test_words_that_yaml_takes_for_booleans():
    assert parse_set("training.precision=no")[1] is False
    assert RunConfig.from_sources(sets=["training.precision=no"]).training.precision == "no"


def test_lists_by_comma_or_brackets():
    by_comma = RunConfig.from_sources(sets=["data.modalities=text,audio"])
    assert by_comma.data.modalities == ["text", "audio"]
    assert RunConfig.from_sources(sets=["data.modalities=[text, audio]"]) == by_comma


def test_yaml_round_trip_is_exact(tmp_path):
    config = RunConfig.from_sources(
        sets=["training.lr=3e-4", "host.hidden=12", "objective.also.cross-entropy.weight=0.5", "data.seed=3"],
        fusion="lmam",
        placement="early",
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert RunConfig.load(path) == config
    assert yaml.safe_load(config.to_yaml())["host"] == {"name": "bc-lstm", "placement": "early", "hidden": 12}
    assert config.objective.terms()[1] == ("cross-entropy", 0.5, {})


def test_yaml_is_read_by_the_safe_loader(tmp_path):
    marker = tmp_path / "executed"
    file = tmp_path / "evil.yaml"
    file.write_text(f"training: !!python/object/apply:os.mkdir ['{marker}']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        RunConfig.from_sources(file)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"), [("- 1\n- 2\n", "must hold sections"), ("training: 3\n", "must be a mapping")]
)
def test_a_file_without_sections(tmp_path, content, message):
    file = tmp_path / "list.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_sources(file)


def test_another_plugin_drops_the_options_of_the_first(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("fusion: {name: lmam, rank: 4}\ndata: {source: demo, dialogues: 30, dev_fraction: 0.2}\n")
    config = RunConfig.from_sources(file, fusion="concat")
    assert config.fusion.options == {}
    assert RunConfig.from_sources(file, fusion="lmam").fusion.options == {"rank": 4}
    assert config.data.dev_fraction == 0.2


def test_fingerprint_follows_what_changes_numbers():
    base = RunConfig.from_sources()
    same = RunConfig.from_sources(sets=["training.keep=7", "training.tracker=tensorboard"])
    assert same.fingerprint() == base.fingerprint()
    for text in ("training.lr=0.5", "host.hidden=3", "training.seed=1", "objective.label_smoothing=0.2"):
        assert RunConfig.from_sources(sets=[text]).fingerprint() != base.fingerprint()


def test_replaced_leaves_the_original_alone():
    base = RunConfig.from_sources()
    other = base.replaced(fusion={"name": "sum"}, training__seed=5)
    assert (other.fusion.name, other.training.seed) == ("sum", 5)
    assert (base.fusion.name, base.training.seed) == ("concat", 0)
