"""Private names of PyTorch were checked with the version installed."""

from importlib.metadata import version

from krontime.models import torch_internals


def test_the_use_was_checked_with_this_version():
    """After a look at it, the version in the file may be raised."""
    assert version("torch").split("+")[0] == torch_internals.VERIFIED["torch"]
