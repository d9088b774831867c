"""Configs: files and variants, overrides, durations, JSON."""

import contextlib
import json
import warnings

import pytest

from imgcls_jax import config, durations
from imgcls_jax.errors import ConfigError


@pytest.fixture(scope="module")
def digits():
    return config.load("digits").config


def changed(old, *overrides):
    """{path: new value} of what the overrides changed."""
    new = config.flatten(config.override(old, overrides))
    before = config.flatten(old)
    return {key: new.get(key) for key in {*new, *before}
            if (key in new) != (key in before) or new[key] != before[key]}


def refusal(old, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        config.override(old, overrides)
    return str(caught.value)


# ---- overrides ------------------------------------------------------------------------------


@pytest.mark.parametrize("key, text, expected", [
    ("batch_size", "512", {"batch_size": 512}),
    ("model.zero_init", "True", {"model.zero_init": True}),  # an argument the file does not write
    ("model.zero_init", "true", {"model.zero_init": True}),
    ("transforms[0].padding", "2", {"transforms[0].padding": 2}),
    ("schedule.base", "1e-3", {"schedule.base": 1e-3}),
    ("total.steps", "100", {"total.epochs": None, "total.steps": 100}),
    ("total.examples", "5000", {"total.epochs": None, "total.examples": 5000}),
    ("evals.test.every.steps", "7", {"evals.test.every.epochs": None, "evals.test.every.steps": 7}),
    ("ema.decay", "0.99", {"ema": None, "ema.decay": 0.99}),
    ("clip", "{'norm': 1.0}", {"clip": None, "clip.norm": 1.0}),
    ("freeze", "('stem.*',)", {"freeze": ("stem.*",)}),
    ("data.train", "train[:50%]", {"data.train": "train[:50%]"}),
    ("optimizer.nesterov", "False", {"optimizer.nesterov": False}),
    ("weight_decay", "None", {"weight_decay": None, "weight_decay.value": None,
                              "weight_decay.on": None, "weight_decay.mode": None}),
])
def test_an_override_changes_what_it_names_and_nothing_else(digits, key, text, expected):
    assert changed(digits, (key, text)) == expected


def test_a_new_name_drops_the_arguments_of_the_old_one(digits):
    new = config.override(digits, [("optimizer.name", "adamw")])
    assert new["optimizer"] == {"name": "adamw"}


def test_arguments_beside_a_new_name_are_those_of_the_new_one_in_any_order(digits):
    overrides = [("optimizer.b2", "0.95"), ("optimizer.name", "adamw")]
    for order in (overrides, overrides[::-1]):
        assert config.override(digits, order)["optimizer"] == {"name": "adamw", "b2": 0.95}


def test_the_name_that_is_set_already_keeps_its_arguments(digits):
    assert changed(digits, ("optimizer.name", "sgd")) == {}


def test_the_given_config_is_left_as_it_was(digits):
    before = config.to_json(digits)
    config.override(digits, [("model.width", "8"), ("transforms[0].padding", "2")])
    assert config.to_json(digits) == before


@pytest.mark.parametrize("key, text, words", [
    ("batchsize", "512", ("batchsize", "'batch_size'")),
    ("modle.name", "vit", ("modle", "'model'")),
    ("batch_size", "many", ("batch_size", "'many'", "64")),
    ("batch_size", "3.5", ("batch_size=3.5", "int")),
    ("batch_size", "0", ("batch_size=0", "1 or more")),
    ("batch_size", "True", ("batch_size=True",)),
    ("optimizer.nesterov", "2", ("'2' is not a bool", "config.optimizer.nesterov")),
    ("transforms", "5", ("'5' is not a tuple",)),
    ("total", "100", ("'100' is not a dict", "epochs")),
    ("transforms[1].size", "2", ("no entry [1]", "entries: 1")),
    ("model[0]", "2", ("no entry [0]",)),
    ("batch_size.x", "2", ("64 has no key 'x'",)),
    ("[]", "2", ("config.[]",)),
    ("seed", str(2**70), ("seed", "beyond 64 bits")), ("seed", str(2**32), ("seed", "too large")),
    ("total.steps", str(10**30), ("total.steps", "beyond 64 bits")),
    ("transforms[0].padding", str(-2**63 - 1), ("transforms[0].padding", "beyond 64 bits")),
    ("batch_size", "-" * 50_000 + "1", ("is not a int",)),
    ("batch_size", "(" * 50_000, ("is not a int",)),
    ("model.width", "[" * 90 + "]" * 90, ("64 levels",)),
    (".".join("a" * 500), "1", ("does not name a value",)),
    ("transforms[99999999999999999999]", "1", ("does not name a value",)),
])
def test_a_wrong_override_is_refused_by_name(digits, key, text, words):
    message = refusal(digits, (key, text))
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 3 and "config." in message


def test_overrides_are_taken_from_the_command_line_in_both_spellings():
    rest, overrides = config.split_argv(
        ["--config=digits", "--config.batch_size=8", "--workdir", "W", "--config.total.steps", "5",
         "-config.data.train=a=b", "--config.transforms[0].size=160"])
    assert rest == ["--config=digits", "--workdir", "W"]
    assert overrides == [("batch_size", "8"), ("total.steps", "5"), ("data.train", "a=b"),
                         ("transforms[0].size", "160")]
    with pytest.raises(ConfigError, match="has no value"):
        config.split_argv(["--config.batch_size"])


# ---- files and variants ---------------------------------------------------------------------


def test_a_variant_selects_a_member_and_its_claim():
    loaded = config.load("imagenet/resnet:resnet18")
    assert loaded.config["model"]["name"] == "resnet18"
    assert loaded.claim["params"] == 11_689_512


@pytest.mark.parametrize("spec, words", [
    ("digit", ("'digit'", "'digits'")),
    ("digits:resnt", ("'resnt'", "resnet", "vit")),
    ("finetune:modle=vit", ("'modle'", "'model'")),
    ("no/such/file.py", ("no/such/file.py",)),
])
def test_an_unknown_config_or_variant_offers_those_there_are(spec, words):
    with pytest.raises(ConfigError) as caught:
        config.load(spec)
    assert all(word in str(caught.value) for word in words), caught.value


def test_variants_are_cast_to_the_types_of_the_defaults():
    defaults = dict(model="resnet20", size=0, base=0.1)
    assert config.parse_variant("", **defaults) == defaults
    assert config.parse_variant("vit_s16", **defaults) == defaults | {"model": "vit_s16"}
    assert config.parse_variant("size=224,base=1e-3,model=5", **defaults) == {
        "model": "5", "size": 224, "base": 1e-3}


def test_a_variant_of_the_wrong_type_is_refused():
    with pytest.raises(ConfigError, match="size"):
        config.parse_variant("size=big", size=0)


def test_a_config_of_before_keeps_its_splits_and_their_parts(digits):
    folder = {"name": "folder", "dir": "photos"}
    now = {**digits, "data": {**folder, "parts": "mixed"},
           "evals": {"val": None, "other": {"name": "classification", "data": folder}}}
    assert config.saved(now) == now
    before = config.saved({**now, "data": folder})
    listed = {**folder, "parts": "listed", "draw": "count"}
    assert before["data"] == before["evals"]["other"]["data"] == listed
    assert before["evals"]["val"] is None
    weighted = config.saved({**now, "data": folder, "loss": {
        "name": "softmax", "class_weights": "auto"}})
    assert weighted["loss"]["class_weights"] == {"weights": "balanced", "mean": "examples"}
    assert config.saved({**now, "data": {"name": "digits"}})["data"] == {
        "name": "digits", "parts": "listed"}


@pytest.mark.parametrize("wrong", [None, 3, "", "x", [], ["x"], {}, {"": "x"}, {"name": 3}])
@pytest.mark.parametrize("key", config.KEYS)
def test_any_value_in_a_config_of_before_is_read_or_refused(tmp_path, digits, key, wrong):
    before = {**digits, "data": {"name": "digits"}}
    places = [{key: wrong}]
    if key in ("data", "evals"):
        places += [{"evals": {"val": wrong}}, {"evals": {"val": {"name": "x", "data": wrong}}}]
    for place in places:
        (tmp_path / "of_before.json").write_text(config.to_json({**before, **place}))
        with contextlib.suppress(ConfigError), warnings.catch_warnings(action="ignore"):
            config.located(config.load(str(tmp_path / "of_before.json")).config)


def test_a_file_elsewhere_and_its_json_load_alike(tmp_path, digits):
    source = (config.folder() / "digits.py").read_text()
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "mine.json").write_text(config.to_json(digits))
    assert config.load(str(tmp_path / "mine.py")).config == digits
    assert config.load(str(tmp_path / "mine.json")).config == digits


@pytest.mark.parametrize("name, text", [
    ("a.json", "{"), ("a.json", "[1]"), ("a.py", "x = 1"), ("a.py", "x = '\0'"),
    ("a.json", '"\xff'), ("a.json", '{"a":' * 100_000), ("a.json", '{"a":' * 100 + "1" + "}" * 100),
    ("a.yaml", "seed: 0\n"), ("a.toml", "seed = 0\n"),
    ("a.py", "def get_config(): return None\n"), ("a.py", "def get_config(): return [1]\n"),
    ("a.py", "def get_config(): return 1 / 0\n")])
def test_a_file_that_is_no_config_is_refused(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode("latin1"))
    with pytest.raises(ConfigError, match=name):
        config.load(str(tmp_path / name))


def test_a_config_may_be_a_plain_dict_but_not_one_that_holds_itself(tmp_path, digits):
    (tmp_path / "plain.py").write_text(f"def get_config(): return {digits!r}\n")
    assert config.load(str(tmp_path / "plain.py")).config == digits
    (tmp_path / "itself.py").write_text(
        "def get_config():\n    made = {}\n    made['seed'] = made\n    return made\n")
    with pytest.raises(ConfigError, match="64 levels"):
        config.load(str(tmp_path / "itself.py"))


def test_an_error_inside_a_config_file_is_not_called_a_wrong_variant(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    return {}['absent']\n")
    with pytest.raises(ConfigError, match="KeyError: 'absent'") as caught:
        config.load(str(tmp_path / "mine.py"))
    assert caught.value.where.endswith("mine.py, line 2")


def test_a_missing_key_is_named(digits):
    with pytest.raises(ConfigError, match="'schedule'"):
        config.check({k: v for k, v in digits.items() if k != "schedule"})


# ---- plain data -----------------------------------------------------------------------------


def test_json_brings_back_the_same_values_and_types(digits):
    assert config.from_json(config.to_json(digits)) == digits
    assert isinstance(config.from_json(config.to_json(digits))["transforms"], tuple)


def test_the_digest_names_the_values_and_not_their_order(digits):
    backwards = dict(reversed(digits.items()))
    assert config.digest(digits) == config.digest(backwards)
    assert config.digest(digits) == config.digest(json.loads(config.to_json(digits)))
    assert config.digest(digits) != config.digest(digits | {"seed": 1})
    assert len(config.digest(digits)) == 12


def test_what_is_no_data_cannot_stand_in_a_config():
    with pytest.raises(ConfigError, match="is not allowed in a config"):
        config.plain({"loss": max})


def test_a_difference_is_a_line_per_leaf(digits):
    new = config.override(digits, [("seed", "1"), ("model.zero_init", "True"),
                                   ("transforms[0].padding", "3")])
    assert config.diff(digits, new) == [
        "model.zero_init: '(absent)' -> True", "seed: 0 -> 1", "transforms[0].padding: 1 -> 3"]
    assert config.diff(digits, digits) == []


# ---- durations ------------------------------------------------------------------------------


@pytest.mark.parametrize("duration, expected", [
    (dict(steps=1000), 1000), (dict(epochs=2), 40), (dict(epochs=0.5), 10),
    (dict(examples=500), 10), (dict(epochs=0.001), 1), (dict(examples=1), 1)])
def test_durations_become_whole_steps_of_at_least_one(duration, expected):
    assert durations.steps(duration, examples=1000, batch_size=50, where="total") == expected


@pytest.mark.parametrize("duration", [dict(epochs=0), dict(steps=-1), dict(epochs="2"),
                                      dict(weeks=1), dict(epochs=1, steps=2), 5,
                                      dict(epochs=float("nan")), dict(epochs=True)])
def test_what_is_no_duration_is_refused(duration):
    with pytest.raises(ConfigError, match=r"total"):
        durations.steps(duration, examples=1000, batch_size=50, where="total")


def test_durations_are_resolved_wherever_they_stand():
    value = {"a": ({"epochs": 1}, {"name": "x", "every": {"examples": 100}}), "b": "epochs"}
    assert durations.resolve(value, examples=1000, batch_size=50, where="config") == {
        "a": (20, {"name": "x", "every": 2}), "b": "epochs"}


@pytest.mark.parametrize("text, line", [("def get_config(:\n", 1), ("x = 1\ny = x.z\n", 2)])
def test_a_config_file_that_fails_is_told_with_its_line(tmp_path, text, line):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"mine.py, line {line}"):
        config.load(str(path))


def test_what_lies_at_a_path_is_told_from_the_name_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = dict(name="folder", dir="photos", train="train", eval="val")
    assert config.data_at("photos") is None
    assert config.data_at("./photos") == {**folder, "dir": "./photos"}
    (tmp_path / "photos").mkdir()
    assert config.data_at("photos") == folder
    (tmp_path / "photos.zip").write_bytes(b"")
    assert config.data_at("photos.zip") == {**folder, "dir": "photos.zip"}
    (tmp_path / "m.jsonl").write_text("")
    assert config.data_at("m.jsonl")["name"] == "manifest"
    (tmp_path / "photos/dataset.json").write_text('{"splits": {"train": {}, "validation": {}}}')
    assert config.data_at("photos") == dict(name="prepared", dir="photos", train="train",
                                            eval="validation")


@pytest.mark.parametrize("text, value", [("True", True), ("False", False), ("None", None),
                                         ("keys_values", "keys_values"), ("true", "true")])
def test_a_constant_of_python_may_replace_a_string(text, value):
    loaded = config.load("imagenet/vit:vit_s16", [("model.remat", text)]).config
    assert loaded["model"]["remat"] == value and type(loaded["model"]["remat"]) is type(value)


@pytest.mark.parametrize("text, shown", [
    ("花", "花"), ("é🐝", "é🐝"), ("क्ष", "क्ष"), ('"\\', '\\"\\\\'), ("a\nb", "a\\nb"),
    ("\x1b[2J\x7f\x9b", "\\u001b[2J\\u007f\\u009b"), ("\u202e\u2028", "\\u202e\\u2028"),
    ("caf\udce9", "caf\\udce9"), ("\U000e0041", "\\udb40\\udc41")])
@pytest.mark.parametrize("indent", [None, 1])
def test_json_has_real_letters_and_escapes_for_what_a_terminal_would_obey(text, shown, indent):
    written = config.to_json({text: [text]}, indent=indent)
    assert json.loads(written) == {text: [text]} and written.count(f'"{shown}"') == 2
    assert len(written.splitlines()) == (1 if indent is None else 5)
    written.encode()  # no half of a character is left
