"""Private names of Hydra are used in one file, and were checked with the version that is installed."""

import re
from importlib.metadata import version
from pathlib import Path

from hydra.core.utils import JobReturn

from krontime.config import hydra_internals

SOURCE = Path(hydra_internals.__file__).parents[2]


def test_the_uses_were_checked_with_this_version():
    """After a look at each of them, the version in the file may be raised."""
    for package, checked in hydra_internals.VERIFIED.items():
        assert version(package) == checked


def test_no_other_file_uses_private_names():
    private = re.compile(r"import .*hydra\._|from hydra\._|\._return_value|_return_value=")
    users = {path.name for path in SOURCE.rglob("*.py") if private.search(path.read_text(encoding="utf-8"))}
    assert users == {"hydra_internals.py"}


def test_an_error_goes_into_what_a_job_returns_and_comes_out():
    error = ValueError("no")
    returned = hydra_internals.failed(error)
    assert isinstance(returned, JobReturn)
    assert hydra_internals.error_of(returned) is error
