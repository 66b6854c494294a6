"""Only allow-listed classes are ever built, and nothing is imported or run to find out that one is not."""

import ast
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra.errors
import hydra.utils
import pytest
import torch
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from krontime.config import resolve, targets
from krontime.config.files import PACKAGE, config_dir
from krontime.config.names import nearest
from krontime.data.series import SeriesSpec
from krontime.errors import UserError
from krontime.models import tcn
from krontime.models.windowed import Windowed
from krontime.training import build

ALLOWED = [
    "krontime.models.krontime.KronTime",
    "krontime.models.layers.tokenizers.RocketPatch",
    "krontime.data.sources.synthetic.SyntheticSource",
    "torch.optim.AdamW",
    "torch.optim.adamw.AdamW",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.strategies.DDPStrategy",
]

REFUSED = [
    # elsewhere, and look-alikes of what is allowed
    "os.system",
    "builtins.eval",
    "eval",
    "",
    "torch.load",
    "torch.nn.Linear",
    "pickle.loads",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "functools.partial",
    "subprocess.Popen",
    "krontime.config.targets.instantiate",
    "krontime.models",
    "krontime.modelsx.KronTime",
    "xkrontime.models.krontime.KronTime",
    "torch.optimx.AdamW",
    "lightning.pytorch.Trainer",
    # by way of what an allowed module imports
    "krontime.models.krontime.torch.load",
    "krontime.models.krontime.nn.Module",
    "krontime.models.windowed.nn.Module",
    "krontime.models.krontime.plan_levels",
    "krontime.models.krontime.checkpoint",
    "krontime.models.krontime.F.gelu",
    "krontime.data.sources.ucr.shutil.rmtree",
    "krontime.data.sources.ucr.importlib.import_module",
    "krontime.data.sources.npz.np.load",
    "krontime.data.sources.npz.SeriesData",
    "torch.optim.lr_scheduler.partial",
    "torch.optim.adam.Tensor",
    "lightning.pytorch.loggers.csv_logs.os.system",
    "lightning.pytorch.callbacks.torch.load",
    # functions, methods, modules and attributes of allowed classes
    "krontime.models.layers.patches.num_patches",
    "krontime.data.sources.synthetic.SyntheticSource.load",
    "krontime.models.krontime.KronTime.__class__",
    "krontime.models.krontime.Block.__base__",
    "krontime.models.krontime.KronTime.__init__.__globals__",
    "krontime.models.krontime.KronTime.__init__.__builtins__.eval",
    "krontime.models.krontime",
    "torch.optim.lr_scheduler",
    # no name at all
    "krontime.models.",
    "krontime.models..os.system",
    "krontime.models.krontime.Nothing",
    "krontime.models.nothing.Nothing",
    "krontime.models.krontime.KronTime\n",
    "../krontime.models.krontime.KronTime",
    None,
    3,
    True,
    ["torch.optim.AdamW"],
    {"_target_": "torch.optim.AdamW"},
    {},
    torch.optim.AdamW,
    eval,
]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that appears as soon as the module `krontime_trap` is imported."""
    sprung = tmp_path / "sprung"
    code = f"open({str(sprung)!r}, 'w').close()\nclass Trap:\n    def __init__(self, *args, **options):\n        pass\n"
    (tmp_path / "krontime_trap.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield sprung
    sys.modules.pop("krontime_trap", None)


def test_the_trap_would_spring(trap: Path):
    hydra.utils.instantiate({"_target_": "krontime_trap.Trap"})
    assert trap.exists()


@pytest.mark.parametrize("target", ALLOWED)
def test_allowed_classes(target: str):
    assert targets.refusal(target) is None


@pytest.mark.parametrize("target", REFUSED, ids=repr)
def test_refused(target: Any):
    assert targets.refusal(target) is not None
    with pytest.raises(UserError, match=r"_target_=.*expected"):
        targets.instantiate({"_target_": target}, "model")


@pytest.mark.parametrize(
    "target",
    [
        "krontime_trap.Trap",
        "krontime_trap",
        "krontime.models.krontime_trap.Trap",
        "krontime.models.krontime.krontime_trap.Trap",
        "torch.optim.krontime_trap.Trap",
        "lightning.pytorch.callbacks.krontime_trap.Trap",
    ],
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda target: {"_target_": target},
        lambda target: {"_target_": target, "_partial_": True},
        lambda target: {"_target_": target, "_args_": [1], "_recursive_": False, "_convert_": "all"},
        lambda target: {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": {"_target_": target}},
        lambda target: {"_target_": "torch.optim.AdamW", "_args_": [{"_target_": target}], "_partial_": True},
        lambda target: {"_target_": "torch.optim.AdamW", "_recursive_": False, "a": {"b": [[{"_target_": target}]]}},
        lambda target: {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": ({"_target_": target},)},
        lambda target: {
            "_target_": "torch.optim.AdamW",
            "_partial_": True,
            "lr": f"${{oc.create:{{_target_: {target}}}}}",
        },
        lambda target: {
            "_target_": "torch.optim.AdamW",
            "_partial_": True,
            "betas": [f"${{oc.create:{{_target_: {target}}}}}"],
        },
        lambda target: {"_target_": f"${{oc.decode:{target}}}"},
        lambda target: {"_target_": {"_target_": target}},
        lambda target: {"_target_": [target]},
    ],
)
def test_what_is_refused_is_not_even_imported(wrap, target, trap: Path):
    with pytest.raises(UserError):
        targets.instantiate(wrap(target), "model")
    assert not trap.exists()
    assert "krontime_trap" not in sys.modules


def test_an_escaped_interpolation_of_a_command_line_is_refused(trap: Path):
    config = OmegaConf.create(
        {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": r"\${oc.create:{_target_: krontime_trap.Trap}}"}
    )
    with pytest.raises(UserError, match=r"lr=.*interpolation"):
        targets.instantiate(resolve.plain(config), "model")
    assert not trap.exists()


def test_the_class_that_was_checked_is_the_class_that_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package may have an attribute and a submodule of the same name; Hydra takes the attribute."""
    package = tmp_path / "krontime_double"
    package.mkdir()
    (package / "__init__.py").write_text("class part:\n    class Thing: pass\n")
    (package / "part.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(targets, "ALLOWED_TARGETS", ("krontime_double.part.",))
    # Hydra would build the nested class, whose module is the package: not on the list.
    assert hydra.utils.get_class("krontime_double.part.Thing").__module__ == "krontime_double"
    assert targets.refusal("krontime_double.part.Thing") is not None


def test_all_problems_of_a_config_at_once():
    config = {
        "a": {"_target_": "os.system"},
        "b": [{"_target_": "builtins.eval"}],
        "c": {"_target_": "torch.optim.SGD"},
    }
    lines = targets.target_problems(config)
    assert [line.split("=")[0] for line in lines] == ["a._target_", "b[0]._target_"]


TCN = {"_target_": "krontime.models.tcn.TCN", "channels": 0, "kernel_size": 1, "dropout": 2.0}
TOKENIZER = {"_target_": "krontime.models.layers.tokenizers.LinearPatch", "_partial_": True}
PATCHTST = {"_target_": "krontime.models.patchtst.PatchTST", "num_heads": 5, "tokenizer": TOKENIZER}
SIZES = {"num_channels": 1, "length": 40, "num_classes": 2}


def test_an_argument_that_is_refused_is_named_by_the_key_that_was_typed():
    with pytest.raises(UserError) as caught:
        targets.instantiate(TCN, "model", **SIZES)
    keys = [problem.partition("=")[0] for problem in caught.value.problems]
    assert sorted(keys) == ["model.channels", "model.dropout", "model.kernel_size"]
    with pytest.raises(UserError, match=r"^model\.num_heads=5: expected a divisor of d_model=128$"):
        targets.instantiate(PATCHTST, "model", **SIZES)
    source = {"_target_": "krontime.data.sources.synthetic.SyntheticSource", "noise": -1.0}
    with pytest.raises(UserError, match=r"^data\.source\.noise=-1\.0: expected"):
        targets.instantiate(source, "data.source")


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr("krontime.models.tcn.TCN.__init__", broken)
    with pytest.raises(InstantiationException, match="a bug"):
        targets.instantiate({**TCN, "channels": 8}, "model", **SIZES)
    with pytest.raises(UserError, match=r"^optim.optimizer \(torch.optim.SGD\): "):
        targets.instantiate({"_target_": "torch.optim.SGD", "params": 3, "lr": 0.1}, "optim.optimizer")


REFUSALS = {
    "a value of the wrong kind": TypeError("'<=' not supported between instances of 'float' and 'str'"),
    "a value": ValueError("Invalid learning rate"),
    "a library's own words": MisconfigurationException("mode is min or max"),
    "a module": ModuleNotFoundError("No module named 'tensorboard'"),
    "a file": PermissionError(13, "Permission denied"),
}
FAULTS = (AttributeError("no attribute"), KeyError("k"), IndexError("i"), ZeroDivisionError(), RuntimeError("r"))


def stands_in(monkeypatch: pytest.MonkeyPatch, error: Exception) -> dict[str, Any]:
    """The config of another library's class whose constructor raises."""

    def refusing(self: object, patience: int = 1) -> None:
        raise error

    monkeypatch.setattr("lightning.pytorch.callbacks.EarlyStopping.__init__", refusing)
    return {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "patience": 1}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_what_another_library_refuses_is_told(monkeypatch, error):
    with pytest.raises(UserError, match=r"callbacks\.early_stopping"):
        targets.instantiate(stands_in(monkeypatch, error), "callbacks.early_stopping")


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_fault_in_another_library_keeps_its_traceback(monkeypatch, error):
    with pytest.raises(InstantiationException):
        targets.instantiate(stands_in(monkeypatch, error), "callbacks.early_stopping")


def test_a_fault_of_ours_below_another_library_keeps_its_traceback(monkeypatch):
    def calls_ours(self: object) -> None:
        nearest("a", 3)  # type: ignore[arg-type]

    monkeypatch.setattr("lightning.pytorch.callbacks.Timer.__init__", calls_ours)
    with pytest.raises(InstantiationException):
        targets.instantiate({"_target_": "lightning.pytorch.callbacks.Timer"}, "callbacks.timer")


def test_a_missing_target_is_said():
    with pytest.raises(UserError, match="_target_ is missing"):
        targets.instantiate({"lr": 0.1}, "model")


def test_every_target_of_the_configs_may_be_built():
    result = [
        line.split(":", 1)[1].split("#")[0].strip()
        for file in config_dir().rglob("*.yaml")
        for line in file.read_text().splitlines()
        if line.strip().startswith(("_target_: ", "classifier: aeon."))
        if "${model.classifier}" not in line
    ]
    assert len(result) > 10
    assert [target for target in result if targets.refusal(target)] == []


def test_nothing_else_hands_a_config_to_hydra():
    """`instantiate` of Hydra is only called behind the list."""

    def calls_hydra(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr in ("instantiate", "call") and "hydra" in ast.unparse(node.value)
        names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
        return bool(names & {"instantiate", "call"}) and "hydra" in (getattr(node, "module", None) or "")

    files = PACKAGE.rglob("*.py")
    callers = {file for file in files if any(map(calls_hydra, ast.walk(ast.parse(file.read_text()))))}
    assert callers == {Path(targets.__file__)}


def test_an_object_that_refuses_its_arguments_gives_a_user_error():
    spec = SeriesSpec(1, 100, 2, ("a", "b"))
    tcn = {"name": "tcn", "_target_": "krontime.models.tcn.TCN"}
    with pytest.raises(UserError, match="nonsense"):
        build.network({"model": {**tcn, "nonsense": 1}}, spec)
    linear = {"_target_": "krontime.models.layers.tokenizers.LinearPatch", "_partial_": True}
    krontime = {"name": "krontime", "_target_": "krontime.models.krontime.KronTime"}
    with pytest.raises(UserError, match=r"^tokenizer\.stride=9: expected 1 to patch_length=8"):
        build.network({"model": {**krontime, "tokenizer": {**linear, "patch_length": 8, "stride": 9}}}, spec)
    with pytest.raises(UserError, match=r"(?s)model\.num_heads=7.*model\.dropout=2"):
        build.network({"model": {**krontime, "tokenizer": linear, "num_heads": 7, "dropout": 2}}, spec)


@pytest.mark.parametrize(
    ("refusal", "named"),
    [
        ("fraction=0.9: no room", "data.validation.fraction=0.9: no room"),
        (
            "method='group': expected method=kfold",
            "data.validation.method='group': expected data.validation.method=kfold",
        ),
        ("name='b': unknown", "data.source.name='b': unknown"),  # which of two keys it is, its value says
        ("name='a': unknown\nfraction=2: no", "data.name='a': unknown\ndata.validation.fraction=2: no"),
    ],
)
def test_arguments_of_functions_are_named_by_their_keys(refusal: str, named: str):
    config = {"name": "a", "source": {"name": "b"}, "validation": {"method": "group", "fraction": 0.9}}
    with pytest.raises(UserError) as raised, targets.naming_keys(config, "data"):
        raise ValueError(refusal)
    assert str(raised.value) == named


@pytest.mark.parametrize(
    "error", [ValueError("x is too wide"), ValueError("depth=2: too deep"), UserError("file: bad")]
)
def test_an_error_that_names_no_argument_is_left_as_it_is(error: Exception):
    with pytest.raises(ValueError, match=str(error)) as raised, targets.naming_keys({"name": "a"}, "data"):
        raise error
    assert raised.value is error


BARE_TCN = {"name": "tcn", "_target_": "krontime.models.tcn.TCN"}


@pytest.mark.parametrize(
    "error",
    [
        TypeError("unsupported operand"),
        AttributeError("no such attribute"),
        KeyError("level"),
        IndexError("list index out of range"),
        ZeroDivisionError("division by zero"),
        RuntimeError("shapes"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_in_a_constructor_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def broken(self: object, **_: object) -> None:
        raise error

    monkeypatch.setattr(tcn.TCN, "__init__", broken)
    with pytest.raises(hydra.errors.InstantiationException) as raised:
        build.network({"model": BARE_TCN}, SeriesSpec(1, 100, 2, ("a", "b")))
    assert raised.value.__cause__ is error
    assert "broken" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.parametrize("error", [ValueError("too wide"), UserError("too wide"), UnicodeError("too wide")])
def test_what_a_constructor_refuses_is_the_users(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def refusing(self: object, **_: object) -> None:
        raise error

    monkeypatch.setattr(tcn.TCN, "__init__", refusing)
    with pytest.raises(UserError, match="too wide"):
        build.network({"model": BARE_TCN}, SeriesSpec(1, 100, 2, ("a", "b")))


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"length": None, "stride": None}, None),
        ({"length": 40, "stride": None}, (40, 40)),
        ({"length": 40, "stride": 10}, (40, 10)),
    ],
)
def test_windows_wrap_a_network_where_they_are_shorter_than_the_series(window, expected):
    tcn = {"name": "tcn", "_target_": "krontime.models.tcn.TCN", "channels": 4}
    built = build.network({"model": tcn, "data": {"window": window}}, SeriesSpec(2, 100, 3, ("a", "b", "c")))
    assert (isinstance(built, Windowed) and (built.length, built.stride)) == (expected or False)
    assert built(torch.zeros(2, 2, 100)).shape == (2, 3)


@pytest.mark.parametrize("length", [100, 400])
def test_a_window_that_would_cut_nothing_is_refused(length):
    tcn = {"name": "tcn", "_target_": "krontime.models.tcn.TCN"}
    with pytest.raises(UserError, match=f"data.window.length={length}: expected less than the 100 points"):
        build.network({"model": tcn, "data": {"window": {"length": length}}}, SeriesSpec(2, 100, 3, ("a", "b", "c")))
