"""Every config of every group composes, passes the checks, explains its keys, and builds what it says."""

import inspect
import itertools
from pathlib import Path

import pytest
import torch
from lightning.fabric.connector import _PRECISION_INPUT_STR
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import Strategy

from krontime import cli
from krontime.commands import COMMANDS
from krontime.config import cross_checks, descriptions, resolve, schema, targets
from krontime.config import files as config_files
from krontime.config.sections import leaf_fields
from krontime.data.series import SeriesSpec
from krontime.errors import UserError
from krontime.training import build, equipment
from krontime.training.csv_log import CsvLogger

ROOT = config_files.config_dir()
SPEC = SeriesSpec(2, 300, 3, ("a", "b", "c"), 100.0)

NEEDED = {
    "data=npz": ["data.path=missing/Some.npz"],
    "data=audio": ["data.path=missing/Some"],
    **{
        f"data={name}": ["data.path=missing/Some"]
        for name in ("stacked", "long_table", "wfdb", "edf", "arrays", "audio_recordings", "huggingface")
    },
    "data=prices": ["data.path=missing/Some.csv", "data.source.validation_from=2018-01-01"],
    "data=ucr_text": ["data.train=missing/Some_TRAIN.tsv", "data.test=missing/Some_TEST.tsv"],
    "data=csv": ["data.train=missing/Some_TRAIN.csv", "data.test=missing/Some_TEST.csv"],
    "data=ts": ["data.train=missing/Some_TRAIN.ts", "data.test=missing/Some_TEST.ts"],
    "decomposition=sizes": ["decomposition.sizes=[20,20]"],
    "model=aeon": ["model.classifier=aeon.classification.DummyClassifier"],
}
"""What a choice can't do without."""

NEEDED_BY_COMMAND = {
    "evaluate": ["run=RUN"],
    "explain": ["run=RUN", "input=a.npz"],
    "export": ["run=RUN", "output=BUNDLE"],
    "predict": ["run=RUN", "input=a.npz", "output=b.csv"],
    "probe": ["run=RUN"],
    "report": ["run=RUN"],
    "verify": ["table=RESULTS"],
}

PRIMARY = sorted(path.stem for path in ROOT.glob("*.yaml"))


def groups() -> dict[str, str]:
    """Each config group, and a command that knows it: by its own defaults, or by those of its models."""
    result: dict[str, str] = {}
    nested = [config_files.default_groups(ROOT / "model" / f"{name}.yaml") for name in config_files.options("model")]
    for command in sorted(PRIMARY, key=lambda command: command != "train"):
        own = config_files.default_groups(ROOT / f"{command}.yaml")
        brought = set().union(*nested) if "model" in own else set()
        for group in (*own, *sorted(brought)):
            if group != "hydra" and config_files.options(group):
                result.setdefault(group, command)
    return result


CHOICES = [(command, f"{group}={name}") for group, command in groups().items() for name in config_files.options(group)]
TRAIN_CHOICES = [choice for command, choice in CHOICES if command == "train"]


@pytest.fixture
def any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks as on a machine that has what is asked for."""
    monkeypatch.setattr(cross_checks, "accelerator_problem", lambda key, accelerator: None)


def test_no_group_is_left_out():
    folders = {str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("*.yaml")}
    assert folders - {".", "hydra", "hydra/job_logging", "base", "data/base", "suite"} == set(groups())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(compose, command):
    compose(*NEEDED_BY_COMMAND.get(command, []), command=command)
    assert command in COMMANDS
    assert len(config_files.summary(ROOT / f"{command}.yaml")) > 20


@pytest.mark.parametrize(("command", "choice"), CHOICES)
def test_every_choice_composes(compose, command, choice):
    assert compose(choice, *NEEDED.get(choice, []), command=command)
    group, name = choice.split("=")
    assert len(config_files.summary(ROOT / group / f"{name}.yaml")) > 10


@pytest.mark.parametrize("choice", TRAIN_CHOICES)
def test_every_choice_passes_the_checks(compose, any_device, choice):
    schema.check_train(compose(choice, *NEEDED.get(choice, [])), is_multirun=False)


# keys and their meaning

WIRING = {"_target_", "_partial_", "_args_"}
"""Keys that nobody sets by hand."""

HIDDEN = {
    "experiment": {"trainer.max_time"},  # Lightning's own key, which no trainer sets by default
    "callbacks": {"checkpoint.filename", "checkpoint.enable_version_counter"},
    "logger": {"csv.name", "csv.version", "tensorboard.name", "tensorboard.version"},
}
"""Keys that the run folder's layout fixes."""


def leaves(file: Path) -> list[str]:
    """Dotted keys of one YAML file as it stands, defaults list and what only passes on another key left out."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(plain, dict)
    plain.pop("defaults", None)
    return [
        key
        for key, value in resolve.leaves(plain)
        if key.rpartition(".")[2] not in WIRING and not (key.startswith("source.") and str(value).startswith("${data."))
    ]


@pytest.mark.parametrize(
    "file",
    sorted(path for path in ROOT.rglob("*.yaml") if not {"hydra", "suite"} & set(path.relative_to(ROOT).parts)),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_key_is_explained_where_it_stands_or_where_its_group_first_has_it(file):
    group = "" if file.parent == ROOT else file.parent.relative_to(ROOT).parts[0]
    family = [*ROOT.glob("*.yaml")] if group == "size" else [*(ROOT / group).rglob("*.yaml")] if group else [file]
    explained = {key for path in family for key, _, _ in config_files.described_keys(path)}
    if group == "experiment":  # sets keys of train and of its groups, each explained there
        explained |= {key for key, _, _ in config_files.described_keys(ROOT / "train.yaml")}
        for path in (path for path in ROOT.rglob("*.yaml") if path.parent != ROOT):
            name = path.relative_to(ROOT).parts[0]
            explained |= {f"{name}.{key}" for key, _, _ in config_files.described_keys(path)}
    result = [key for key in leaves(file) if not any(key == e or key.startswith((f"{e}.", f"{e}[")) for e in explained)]
    assert set(result) <= HIDDEN.get(group, set())


def test_every_key_of_the_schema_says_what_it_means():
    for section in descriptions.SCHEMAS.values():
        for key, field in leaf_fields(section):
            assert field.description or key.rpartition(".")[2] in ("source", "callbacks", "logger"), key


@pytest.mark.parametrize("command", descriptions.SCHEMAS)
def test_configs_say_of_a_key_what_the_schema_says(command):
    said = {key: field.description for key, field in leaf_fields(descriptions.SCHEMAS[command])}
    files = [("", ROOT / f"{command}.yaml")]
    for group in ("data", "model", "optim", "trainer"):
        files += [(f"{group}.", path) for path in (ROOT / group).rglob("*.yaml")]
    for prefix, path in files:
        for key, _, comment in config_files.described_keys(path):
            assert said.get(f"{prefix}{key}", comment) == comment, (path, key)


def test_a_meaning_ends_with_the_bounds_of_a_number():
    said = descriptions.descriptions("train")
    assert said["data.validation.fraction"].endswith("(stratified, group, time); above 0 and below 1")
    assert said["data.batch_size"].endswith("; at least 1")
    assert said["seed"].endswith("the validation split")


def unwrapped(text):
    """The lines of a help text, each in one piece again."""
    lines = []
    for line in text.splitlines():
        if line.startswith(" " * 16):
            lines[-1] = f"{lines[-1]} {line.strip()}"
        else:
            lines.append(line)
    return lines


def test_the_help_of_train_has_every_group_choice_and_key(capsys):
    cli.main(["train", "--help", "all"])
    lines = [" ".join(line.split()) for line in unwrapped(capsys.readouterr().out)]
    for group, command in groups().items():
        if command != "train":
            continue
        line = next(line for line in lines if line.startswith(f"{group} "))
        assert {name.rstrip("*") for name in line.split()[1:]} == set(config_files.options(group))
    files = [("", ROOT / "train.yaml"), ("data.", ROOT / "data/base/common.yaml")]
    for choice in (
        "data=ucr",
        "model=krontime",
        "tokenizer=stem",
        "closed_form=parts",
        "decomposition=depth2",
        "optim=adamw",
        "trainer=cpu",
    ):
        group, name = choice.split("=")
        files.append((f"{group}.", ROOT / group / f"{name}.yaml"))
    files += [("callbacks.", ROOT / "callbacks/default.yaml"), ("logger.", ROOT / "logger/csv.yaml")]
    for prefix, file in files:
        for key, default, meaning in config_files.described_keys(file):
            if (prefix, key, default) == ("data.", "name", "???"):
                continue  # the choice gives one
            assert any(line.startswith(f"{prefix}{key}={default}") and meaning in line for line in lines), key
    keys = lines[lines.index("data keys (key=value), with their defaults:") + 1 :]
    shown = [line.partition("=")[0] for line in keys if line]
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_help_of_every_command_has_its_keys(capsys, command):
    cli.main([command, "--help", "all"])
    out = [" ".join(line.split()) for line in unwrapped(capsys.readouterr().out)]
    described = config_files.described_keys(ROOT / f"{command}.yaml")
    assert described
    for key, default, meaning in described:
        assert any(line.startswith(f"{key}={default}") and meaning in line for line in out), key


# what they build


@pytest.mark.parametrize("name", config_files.options("data"))
def test_every_data_set_is_described_or_its_missing_file_named(compose, monkeypatch, tmp_path, name):
    monkeypatch.setenv("KRONTIME_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries for 23 s to reach the hub
    config = compose(f"data={name}", *NEEDED.get(f"data={name}", []))
    source = targets.instantiate(config["data"]["source"], "data.source")
    if name in ("archive", "ucr", "synthetic"):
        assert source.describe()["name"] == config["data"]["name"]
        return
    with pytest.raises(UserError) as error, targets.naming_keys(config["data"], "data"):
        source.describe()
    suffix = "tsv" if name == "ucr_text" else name
    pair = [f"Some_TRAIN.{suffix}", f"Some_TEST.{suffix}"]
    files = pair if name in ("csv", "ts", "ucr_text") else [Path(config["data"].get("path", "")).name]
    assert all(any(file in problem for problem in error.value.problems) for file in files)


def combinations() -> list[list[str]]:
    """Every model with every choice of each group that its network is built from."""
    result = []
    networks = [name for name in config_files.options("model") if not name.startswith(("aeon", "closed_form"))]
    for model in networks:
        groups_of_model = set(config_files.default_groups(ROOT / "model" / f"{model}.yaml")) - {"closed_form"}
        brought = [group for group in sorted(groups_of_model) if config_files.options(group)]
        choices = [[f"{group}={name}" for name in config_files.options(group)] for group in brought]
        result += [[f"model={model}", *combination] for combination in itertools.product(*choices)]
    return result


@pytest.mark.parametrize("choices", combinations(), ids=" ".join)
def test_every_model_tokenizer_and_decomposition_builds(compose, choices):
    needed = [override for choice in choices for override in NEEDED.get(choice, [])]
    config = compose(*choices, *needed)
    network = build.network(config, SPEC).eval()
    assert network(torch.randn(2, SPEC.num_channels, SPEC.length)).shape == (2, SPEC.num_classes)
    depth = next((choice.removeprefix("decomposition=depth") for choice in choices if "=depth" in choice), None)
    if depth is not None:
        assert network.plan.depth == min(int(depth), network.plan.num_tokens.bit_length() - 1)


def test_the_combinations_are_all_there():
    result = set(map(frozenset, combinations()))
    assert {"model=krontime", "decomposition=depth3", "tokenizer=conv"} in result
    assert {"model=patchtst", "tokenizer=rocket"} in result
    assert {"model=tcn"} in result


@pytest.mark.parametrize("model", ["inception", "krontime", "patchtst", "s4d", "tcn"])
def test_every_network_takes_a_closed_form(compose, model):
    closed_form = build.closed_form(compose(f"model={model}", "closed_form=parts"), SPEC)
    assert closed_form(torch.randn(2, SPEC.num_channels, SPEC.length)).shape == (2, SPEC.num_classes)
    assert build.closed_form(compose(f"model={model}", "closed_form=none"), SPEC) is None


@pytest.mark.parametrize("name", config_files.options("optim"))
def test_every_optimiser_builds(compose, name):
    options = compose(f"optim={name}")["optim"]
    optimizer = targets.instantiate(options["optimizer"], "optim.optimizer")([torch.nn.Parameter(torch.zeros(2, 2))])
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.defaults["lr"] == options["optimizer"]["lr"]
    assert optimizer.defaults["weight_decay"] == options["optimizer"]["weight_decay"]


@pytest.mark.parametrize("name", config_files.options("callbacks"))
def test_every_set_of_callbacks_builds(compose, tmp_path, name):
    callbacks = equipment.callbacks(compose(f"callbacks={name}"), tmp_path)
    checkpoint = next(callback for callback in callbacks if isinstance(callback, ModelCheckpoint))
    stopping = next(callback for callback in callbacks if isinstance(callback, EarlyStopping))
    assert Path(checkpoint.dirpath) == tmp_path / "checkpoints"
    for callback in (checkpoint, stopping):
        assert callback.monitor in cross_checks.BETTER
        assert callback.mode == cross_checks.BETTER[callback.monitor]
    assert any("WeightAveraging" in type(callback).__name__ for callback in callbacks) == (name == "ema")


@pytest.mark.parametrize("value", ["null", "false", "link"])
def test_an_option_without_effect_is_refused(value, compose):
    with pytest.raises(UserError, match=r"callbacks\.checkpoint\.save_last=.*: has no effect"):
        schema.check_train(compose("data=synthetic", f"+callbacks.checkpoint.save_last={value}"), is_multirun=False)


def test_a_callback_is_switched_off_with_null(compose, tmp_path):
    callbacks = equipment.callbacks(compose("callbacks.early_stopping=null"), tmp_path)
    assert not any(isinstance(callback, EarlyStopping) for callback in callbacks)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb's own imports
@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ("csv", [CsvLogger]),
        ("tensorboard", [TensorBoardLogger]),
        ("wandb", [WandbLogger]),
        ("[csv,tensorboard,wandb]", [CsvLogger, TensorBoardLogger, WandbLogger]),
        ("[]", []),
    ],
)
def test_loggers_build_alone_and_together(compose, tmp_path, names, kinds):
    loggers = equipment.loggers(compose(f"logger={names}"), tmp_path)
    assert [type(logger) for logger in loggers] == kinds
    for logger in loggers:
        assert Path(logger.save_dir).is_relative_to(tmp_path)
        assert not isinstance(logger, WandbLogger) or logger._offline
    assert not {"csv", "tensorboard", "wandb"} ^ set(config_files.options("logger"))  # a new one needs a line above


@pytest.mark.parametrize("name", config_files.options("trainer"))
def test_trainer_options_are_lightnings(compose, name):
    options = compose(f"trainer={name}")["trainer"]
    assert set(options) <= set(inspect.signature(Trainer.__init__).parameters)
    assert options["precision"] in _PRECISION_INPUT_STR.__args__
    if isinstance(options["strategy"], dict):
        assert isinstance(targets.instantiate(options["strategy"], "trainer.strategy"), Strategy)
    assert (options["accelerator"] == "gpu") == (name not in ("cpu", "ddp_cpu"))


@pytest.mark.parametrize("name", config_files.options("trainer"))
def test_every_trainer_builds_or_says_what_is_not_there(compose, tmp_path, name):
    config = compose(f"trainer={name}")
    if config["trainer"]["accelerator"] == "gpu" and not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"(?i)trainer.*(gpu|cuda|no supported)"):
            equipment.trainer(config, tmp_path, [], [])
        with pytest.raises(UserError, match=r"trainer\.accelerator='gpu': there is none on this machine"):
            schema.check_train(config, is_multirun=False)
        return
    trainer = equipment.trainer(config, tmp_path, [], [])
    assert trainer.max_epochs == config["trainer"]["max_epochs"]
    assert trainer.num_devices == config["trainer"]["devices"]
    assert trainer.gradient_clip_val == config["trainer"]["gradient_clip_val"]
    assert trainer.world_size == trainer.num_devices


@pytest.mark.parametrize("name", config_files.options("experiment"))
def test_every_experiment_builds(compose, any_device, name):
    config = compose(f"experiment={name}")
    schema.check_train(config, is_multirun=False)
    network = build.network(config, SPEC)
    assert network(torch.randn(2, SPEC.num_channels, SPEC.length)).shape == (2, SPEC.num_classes)
    text = (ROOT / "experiment" / f"{name}.yaml").read_text()
    assert f"experiment={name}" in text  # opens with its command
