"""From a composed config to plain values: the only place, beside the command line, that sees a DictConfig."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from krontime.errors import UserError

if TYPE_CHECKING:
    pass


def register_resolvers() -> None:
    """Make `${krontime.user_cache:}`, `${krontime.stem:PATH}`, `${krontime.last_name:A.B}` and
    `${krontime.config_hash:}` known to OmegaConf.
    """
    OmegaConf.register_new_resolver("krontime.user_cache", _user_cache, replace=True)
    OmegaConf.register_new_resolver("krontime.stem", _stem, replace=True)
    OmegaConf.register_new_resolver("krontime.last_name", lambda path: path.rpartition(".")[2], replace=True)
    OmegaConf.register_new_resolver("krontime.config_hash", _root_hash, replace=True)


def _stem(path: str) -> str:
    """Return the name of a file without its ending, or of a folder whole, as a run folder can be called."""
    given = Path(os.path.abspath(path))  # where `.` is what was typed too
    name = given.name if given.is_dir() else given.stem
    return re.sub(r"[/\\]", "_", name).lstrip(".") or "data"


def _user_cache() -> str:
    """`KRONTIME_CACHE` where it says something, else the user's own folder for such files.

    Raises:
        UserError: neither is there.
    """
    if given := os.environ.get("KRONTIME_CACHE"):
        return given
    import platformdirs

    try:
        return platformdirs.user_cache_dir("krontime", appauthor=False)
    except RuntimeError as error:
        raise UserError(
            "paths.cache: there is no home folder to keep parsed data in; expected paths.cache=FOLDER, or "
            "KRONTIME_CACHE=FOLDER in the environment"
        ) from error


def _root_hash(*, _root_: DictConfig) -> str:
    from krontime.config.identity import config_hash

    return config_hash(plain(_root_))


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain dicts and lists, without Hydra's own part.

    Raises:
        UserError: a value is missing or an interpolation does not resolve.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    missing = [key for key, value in leaves(OmegaConf.to_container(own)) if value == "???"]
    if missing:
        raise UserError([f"{key}=...: expected a value, and none is given" for key in missing])
    try:
        container = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(str(error).splitlines()[0]) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def unresolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain dicts and lists, with its interpolations left as they are."""
    container = OmegaConf.to_container(config)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below a node of a plain config that is no container, and every `_target_`, with its dotted key."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            dotted = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield dotted, value
            else:
                yield from leaves(value, dotted)
    elif isinstance(node, list | tuple):  # a checkpoint may hold tuples
        for position, value in enumerate(node):
            yield from leaves(value, f"{key}[{position}]")
    else:
        yield key, node
