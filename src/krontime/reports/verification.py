"""Whether a record is met by another run of the same config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from krontime.config.identity import config_hash
from krontime.metrics import MetricName
from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.differences import option, without_seeds
from krontime.runs.record import Record

_FEW_SERIES = 2
"""Test series whose answers may differ where nothing else is known of the spread."""


@dataclass(frozen=True)
class Verification:
    """A record beside what the same config gave again.

    Attributes:
        met: whether the record is met.
        verdict: the same in words.
        recorded: test scores of the record, by metric.
        again: test scores of the run that was trained again.
    """

    met: bool
    verdict: str
    recorded: Mapping[MetricName, float | None]
    again: Mapping[MetricName, float | None]


def here(config: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """A published config with this machine's folders in place of `<NAME>`, and without loggers.

    Args:
        config: of a record.
        paths: `data`, `cache` and `output`.
    """

    def placed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: placed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [placed(item) for item in value]
        if isinstance(value, str):
            for name, folder in paths.items():
                if value == f"<{name}>" or value.startswith(f"<{name}>/"):
                    return folder + value.removeprefix(f"<{name}>")
        return value

    return {**placed(config), "paths": dict(paths), "logger": {}, "force": False}


def verified(recorded: Record, again: Record, runs: Sequence[Stored]) -> Verification:
    """Compare two runs of one config.

    Args:
        recorded: the record that is to be met.
        again: what the same config gave now.
        runs: the others of the table, of which those that differ in the seed alone say how far scores spread.
    """
    old, new = recorded.metrics.test, again.metrics.test

    def result(met: bool, verdict: str) -> Verification:
        return Verification(met, verdict, dict(old), dict(new))

    if recorded.protocol is None or again.protocol is None or again.status is not recorded.status:
        return result(False, f"not met: the run ended as {again.status}, and is recorded as {recorded.status}")
    if recorded.protocol.data_sha256 != again.protocol.data_sha256:
        return result(False, "not met: the data has changed since")
    if old == new:
        return result(True, "met, to the last bit")
    if not (differing := _elsewhere(recorded, again)):
        return result(False, "not met: the processor, its threads and PyTorch are the same, and the scores are not")
    accuracy, other = old.get("accuracy"), new.get("accuracy")
    if accuracy is None or other is None:
        return result(False, "not met: there is no accuracy to compare")
    spread = _spread(recorded, runs)
    limit = max(spread, _FEW_SERIES / max(1, recorded.protocol.num_test))
    words = f"accuracy {other:.4f}, recorded {accuracy:.4f}; limit {limit:.4f}, since {', '.join(differing)}"
    if abs(accuracy - other) <= limit + 1e-6:
        return result(True, f"met within the spread of the seeds: {words}")
    return result(False, f"not met: {words}")


def _elsewhere(recorded: Record, again: Record) -> list[str]:
    """Why the scores need not be the same to the last bit."""
    reasons = []
    if recorded.device.name != again.device.name or recorded.device.kind != again.device.kind:
        reasons.append("the processor is another one")
    if recorded.device.num_threads != again.device.num_threads:
        reasons.append("there are more or fewer threads")
    known = recorded.versions.keys() & again.versions.keys()
    differing = sorted(name for name in known if recorded.versions[name] != again.versions[name])
    if differing:
        reasons.append(f"versions differ ({', '.join(differing)})")
    if (recorded.git and recorded.git.commit) != (again.git and again.git.commit):
        reasons.append("the commit is another one")
    if option(recorded.config, "trainer.max_time") is not None:
        reasons.append("it was trained against the clock")
    return reasons


def _spread(recorded: Record, runs: Sequence[Stored]) -> float:
    """Largest less smallest accuracy of the runs that differ from a record in the seed alone."""
    kind = config_hash(without_seeds(recorded.config))
    alike = [run.record for run in runs if config_hash(without_seeds(run.record.config)) == kind]
    resample = option(recorded.config, "data.resample", 0)
    scores = [
        score
        for record in alike
        if option(record.config, "data.resample", 0) == resample
        and (score := record.metrics.test.get("accuracy")) is not None
    ]
    return max(scores) - min(scores) if scores else 0.0
