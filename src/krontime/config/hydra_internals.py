"""What is used of Hydra that it calls private, each with the reason; nothing else of the project imports such names.

`tests/unit/config/test_hydra_internals.py` fails when another version of Hydra is installed than these uses were
checked with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hydra._internal import hydra as _hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.utils import JobReturn, JobStatus

if TYPE_CHECKING:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

__all__ = ["BasicSweeper", "ConfigLoaderImpl", "composing_with", "error_of", "failed"]

VERIFIED = {"hydra-core": "1.3.8"}
"""Versions that the uses below were checked with.

`BasicSweeper`: the only code that turns `a=1,2 b=3,4` into jobs; Hydra's own sweepers build on it, too.
`ConfigLoaderImpl`: every config that Hydra composes comes from it, so that one place can look at all of them.
"""


def __getattr__(name: str) -> Any:
    """`BasicSweeper` as it is now: Hydra runs its module again when it looks for plugins, which makes another class."""
    if name != "BasicSweeper":
        raise AttributeError(name)
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return BasicSweeper


@contextmanager
def composing_with(loader: type[ConfigLoaderImpl]) -> Iterator[None]:
    """Within this, Hydra composes with `loader`: it has no argument for that."""
    original = _hydra.ConfigLoaderImpl
    _hydra.ConfigLoaderImpl = loader  # type: ignore[misc]
    try:
        yield
    finally:
        _hydra.ConfigLoaderImpl = original  # type: ignore[misc]


def error_of(returned: JobReturn) -> Exception:
    """What a failed job raised: the public `return_value` raises it."""
    error: Exception = returned._return_value
    return error


def failed(error: BaseException) -> JobReturn:
    """What a job returns that raised an error: a launcher has no other way to hand one on."""
    return JobReturn(status=JobStatus.FAILED, _return_value=error)
