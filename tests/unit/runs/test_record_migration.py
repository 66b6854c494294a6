"""Records of earlier schemas are read as if they had been written today, the committed ones among them."""

import json
from pathlib import Path

import pytest

from krontime.config.identity import config_hash
from krontime.errors import UserError
from krontime.reports.comparison.archive import read_lines
from krontime.runs.record import Record
from krontime.runs.record_migration import READABLE, SCHEMA_VERSION, migrated

COMMITTED = sorted((Path(__file__).parents[3] / "docs" / "results").rglob("records.jsonl"))
EARLIER = {
    "seed": 0,
    "model": {"name": "aeon_quant", "_target_": "krontime.reference.Reference", "depth": 2},
    "optim": {"warmup": 0.1, "final": 0.01},
}
PRESENT = {
    "seed": 0,
    "model": {"name": "aeon_quant", "_target_": "krontime.models.aeon.AeonClassifier", "depth": 2},
    "optim": {"warmup_fraction": 0.1, "min_lr_ratio": 0.01},
}


def earlier(make_record, version: int, **changes) -> str:
    """The text of a record as an earlier version of krontime wrote it."""
    content = make_record(model="aeon_quant", config=EARLIER).model_dump(mode="json")
    content |= {"schema_version": version}
    for name in ("num_steps", "max_steps", "limited_by", "train_cpu_s", "warm_up_s", "part_times_s", "memory_of"):
        del content[name]
    if version == 1:
        del content["inference_ms_per_series"]
    return json.dumps(content | changes)


@pytest.mark.parametrize("version", [1, 2])
def test_an_earlier_record_has_the_present_names_and_their_hash(make_record, version):
    record = Record.parse(earlier(make_record, version), "here")
    assert record.schema_version == SCHEMA_VERSION
    assert record.config == PRESENT
    assert record.config_hash == config_hash(PRESENT)
    assert record.inference_ms_per_series is None
    assert Record.parse(record.model_dump_json(), "again") == record


def test_an_earlier_record_that_contradicts_itself_is_refused(make_record):
    with pytest.raises(UserError, match=r"^here: config_hash is '0{12}' but the config's hash is"):
        Record.parse(earlier(make_record, 2, config_hash="0" * 12), "here")
    with pytest.raises(UserError, match="schema_version 1 has no inference_ms_per_series"):
        Record.parse(earlier(make_record, 1, inference_ms_per_series=1.0), "here")


def test_a_present_record_stays_as_it_is(make_record):
    content = make_record(config=EARLIER, model="aeon_quant").model_dump(mode="json")
    assert migrated(content) is content
    assert READABLE[-1] == SCHEMA_VERSION


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parents[1].name)
def test_committed_records_keep_their_scores_and_which_jobs_are_the_same(path):
    before = [json.loads(line.record) for line in read_lines(path)]
    after = [Record.parse(line.record, str(path)) for line in read_lines(path)]
    for content, record in zip(before, after, strict=True):
        kept = record.model_dump(mode="json")
        for field in ("metrics", "protocol", "seed", "model", "data", "train_time_s", "started_at", "git"):
            now = kept[field]
            if field == "protocol":
                now = {key: now[key] for key in content[field]}  # without what came later
            assert now == content[field], field
        assert record.config_hash == config_hash(record.config)
    hashes = {(content["config_hash"], record.config_hash) for content, record in zip(before, after, strict=True)}
    assert len(hashes) == len({old for old, _ in hashes}) == len({new for _, new in hashes})
