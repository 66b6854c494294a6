"""One value for a section of options, and a word for a switch, are refused by every command."""

import contextlib
import io

import pytest

from krontime import cli
from krontime.config.shape import shape_problems


@pytest.mark.parametrize(
    ("command", "config", "expected"),
    [
        ("predict", {"threshold": 0.5}, "threshold=0.5: expected values for its keys threshold.class and threshold."),
        ("predict", {"window": 5, "source": 3}, "source=3: expected values for its keys source.label and source.group"),
        ("predict", {"follow": "maybe"}, "follow='maybe': expected true or false"),
        ("report", {"force": "no", "paths": {}}, "force='no': expected true or false"),
        ("evaluate", {"paths": None}, "paths=None: expected values for its keys paths.data and paths.cache"),
        ("benchmark", {"variants": 5}, "variants.krontime_d4 and others"),
        ("overhead", {"start": "maybe", "paths": 3}, "start='maybe': expected true or false"),
    ],
)
def test_other_shapes_are_refused(command, config, expected):
    assert expected in "\n".join(shape_problems(command, config))


@pytest.mark.parametrize(("command", "config"), [("predict", {"follow": True, "source": {}}), ("train", {"loss": 5})])
def test_what_has_the_shape_or_a_schema_of_its_own_is_left_alone(command, config):
    assert shape_problems(command, config) == []


def test_a_command_ends_with_2_and_says_so():
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as stopped:
        cli.main(["verify", "table=nowhere", "paths=3"])
    assert stopped.value.code == 2
    assert "paths=3: expected values for its keys paths.data and paths.cache" in errors.getvalue()
