"""What Hydra may build from its own part of a config, which it does before any command sees the config.

Hydra instantiates `hydra.callbacks`, `hydra.launcher` and `hydra.sweeper`, and configures logging from
`hydra.job_logging` and `hydra.hydra_logging`, where handlers are classes by name. Each of these could name any
callable, in an override as in a file. So every config that Hydra composes, for a single run, a sweep and each job of
it, is looked at as soon as it is composed.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from krontime.config.hydra_internals import ConfigLoaderImpl, composing_with
from krontime.errors import UserError

PLUGINS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
)
INSTALLED_PLUGINS = "hydra_plugins."
"""Launchers and sweepers that are installed as such; Hydra itself refuses a class from there that is neither."""

LOGGING_CLASSES = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
LOGGING = ("job_logging", "hydra_logging")

_NAME = (
    r"\$\{hydra\.(job\.(name|id|num|override_dirname|config_name)|(run|sweep)\.dir|sweep\.subdir|runtime\.\w+_?dir)\}"
)
_TEXT = re.compile(rf"({_NAME}[^$]*)+")
"""Interpolations that can only ever be text; any other could bring in a whole object, or another one later."""

_IN_OUTPUT = re.compile(rf"\$\{{hydra\.runtime\.output_dir\}}/[^$]*({_NAME}[^$]*)*")


class CheckedLoader(ConfigLoaderImpl):
    """Hydra's loader, which gives out no config that names what may not be built."""

    def __init__(self, config_search_path: Any) -> None:
        paths = [entry.path for entry in config_search_path.get_path() if entry.provider == "main"]
        if problems := _searchpath_problems("--config-path", paths):
            raise UserError(problems)
        super().__init__(config_search_path)

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose a config; every composition comes by here, that of each job of a sweep too."""
        config = super().load_configuration(*args, **kwargs)
        if problems := hydra_problems(config):
            raise UserError(problems)
        return config

    def _process_config_searchpath(self, config_name: Any, parsed_overrides: Any, repo: Any) -> None:
        loaded = repo.load_config(config_path=config_name) if config_name is not None else None
        given = [OmegaConf.select(loaded.config, "hydra.searchpath")] if loaded else []
        given += [item.value() for item in parsed_overrides if item.get_key_element() == "hydra.searchpath"]
        for paths in given:
            if problems := _searchpath_problems("hydra.searchpath", paths):
                raise UserError(problems)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


@contextmanager
def checked_loading() -> Iterator[None]:
    """Within this, Hydra composes with `CheckedLoader`; launchers take it along to other processes."""
    with composing_with(CheckedLoader):
        yield


def hydra_problems(config: DictConfig) -> list[str]:
    """A line for each value in Hydra's own part of a composed config that it could run code from."""
    hydra = OmegaConf.to_container(config, resolve=False)["hydra"]  # type: ignore[call-overload, index]
    if not isinstance(hydra, Mapping):
        return [f"hydra={hydra!r}: expected Hydra's own keys"]
    problems = []
    if callbacks := hydra.get("callbacks"):
        problems.append(f"hydra.callbacks={callbacks!r}: expected none; a config can't bring its own to Hydra")
    for section, node in hydra.items():
        if section == "callbacks":
            continue
        for key, name, value in _named(node, f"hydra.{section}", str(section)):
            if expected := _expected(str(section), key, name, value):
                problems.append(f"{key}={value!r}: expected {expected}")
    return problems


def _expected(section: str, key: str, name: str, value: Any) -> str | None:
    """What would be right instead of a value of Hydra's part; None where it is right."""
    if name == "()":
        return "no such key: a config can't name what makes a handler, formatter or filter"
    if name == "_target_":
        if key not in ("hydra.launcher._target_", "hydra.sweeper._target_"):
            return "no such key: Hydra builds its launcher and sweeper alone"
        if value not in PLUGINS and not str(value).startswith(INSTALLED_PLUGINS):
            return f"one of {', '.join(PLUGINS)}, or of an installed plugin"
    if section in LOGGING:
        if name == "class":
            return None if value in LOGGING_CLASSES else f"one of {', '.join(LOGGING_CLASSES)}"
        if isinstance(value, str) and "ext://" in value and value not in STREAMS:
            return f"one of {', '.join(STREAMS)}"
        if isinstance(value, str) and "${" in value and not _IN_OUTPUT.fullmatch(value):
            return "a value, or a path that starts with ${hydra.runtime.output_dir}/"
    elif section in ("launcher", "sweeper") and isinstance(value, str) and value.startswith("${"):
        return None if _TEXT.fullmatch(value) else "a value, or one of Hydra's own names and folders"
    return None


def _named(node: Any, key: str, name: str) -> Iterator[tuple[str, str, Any]]:
    """Every value below a node that is no container, and what is to be built, with its dotted key and its name."""
    if name in ("()", "_target_"):
        yield key, name, node
    elif isinstance(node, Mapping):
        for part, value in node.items():
            yield from _named(value, f"{key}.{part}", str(part))
    elif isinstance(node, list | tuple):
        for position, value in enumerate(node):
            yield from _named(value, f"{key}[{position}]", str(position))
    else:
        yield key, name, node


def _searchpath_problems(key: str, paths: Any) -> list[str]:
    """A line for each place of configs that is a Python package, which Hydra would import."""
    listed = paths if isinstance(paths, list | ListConfig) else [paths]
    return [f"{key}={path!r}: expected a folder" for path in listed if re.match(r"(?!file:)\w+://", str(path))]
