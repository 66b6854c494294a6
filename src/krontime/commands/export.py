"""The command `export`: a finished run as a bundle, with its model card."""

from pathlib import Path

from omegaconf import DictConfig

from krontime.config import resolve
from krontime.console import result, show
from krontime.data.series import SeriesSpec
from krontime.errors import Problems, UserError
from krontime.metrics import METRICS
from krontime.runs import load
from krontime.runs.bundle import CARD, SUMS, files_of, is_bundle, write_bundle
from krontime.runs.record import Record, Status
from krontime.storage import RECORD, expanded, writing_problem


def export(config: DictConfig) -> Path:
    """Write the selected model of a run, and all that is needed to use and to judge it, into a new folder.

    Raises:
        UserError: the run is not completed or can't be read, or the folder exists.
    """
    options = resolve.plain(config)
    run_dir, output = (expanded(str(options[key])) for key in ("run", "output"))
    problems = Problems()
    if output.exists():
        problems.add("output", str(output), "the name of a new folder; it exists")
    elif problem := writing_problem(output):
        problems.lines.append(f"output={str(output)!r}: can't be written ({problem})")
    if is_bundle(run_dir):
        problems.add("run", str(run_dir), "the folder of a finished run; this is a bundle")
    problems.raise_if_any()
    run = load.load_run(run_dir)
    record = Record.read(run_dir / RECORD)
    if record.status is not Status.COMPLETED:
        raise UserError(
            f"run={str(run_dir)!r}: expected a completed run; this one is {record.status.replace('_', ' ')}, until the "
            "training command has been run to its end"
        )
    published = record.published()
    try:
        write_bundle(run, published, model_card(published, run.spec), output)
    except OSError as error:
        raise UserError(f"output={str(output)!r}: can't be written ({error.strerror or error})") from error
    result(run=run_dir, output=output)
    show(f"{run_dir} exported: {output} ({', '.join((*files_of(output), SUMS))})")
    return output


def model_card(record: Record, spec: SeriesSpec) -> str:
    """What a stranger has to know of a model, in Markdown; every number is the record's."""
    protocol = record.protocol
    assert protocol is not None  # a completed run has one
    rate = f" at {spec.sampling_rate_hz:g} points per second" if spec.sampling_rate_hz else ""
    rows = [
        f"| {name} | "
        + " | ".join(_score(scores.get(name)) for scores in (record.metrics.val, record.metrics.test))
        + " |"
        for name in METRICS
        if name in record.metrics.val or name in record.metrics.test
    ]
    grouped = f", by {protocol.group}" if protocol.group else ""
    commit = f", commit {record.git.commit[:10]}" + (" with changes" if record.git.dirty else "") if record.git else ""
    return f"""# {record.model} on {record.data}

Classifies series of {spec.num_channels} channel{"s" * (spec.num_channels != 1)} and at most {spec.length} points{rate}
into {spec.num_classes} classes: {", ".join(spec.class_names)}.

```bash
krontime predict run=FOLDER input=FILE output=classes.csv     # new series
krontime evaluate run=FOLDER paths.data=FOLDER_OF_THE_DATA    # the scores below, again
```

## Scores

| metric | validation | test |
|---|--:|--:|
{chr(10).join(rows)}

The checkpoint was selected on {protocol.selection_metric or "nothing (the last epoch's)"}; the test split was read
once, at the end. One run, of seed {record.seed}: other seeds give other scores.

## Protocol

- data set `{record.data}`: {protocol.num_train} training, {protocol.num_val} validation and {protocol.num_test} test
  series, SHA-256 `{protocol.data_sha256}`
- validation carved from train: {protocol.split_method}{grouped}, seed {protocol.split_seed}
- scaling: {protocol.scaling}; preparation: {_options(protocol.preparation)}; windows: {_options(protocol.windowing)}
- training series of each class: {", ".join(f"{name} {n}" for name, n in protocol.train_class_counts.items())}

The model knows the classes above and no others: it gives one of them to any series. It says nothing of data that was
recorded in another way.

## Made with

krontime {record.versions.get("krontime", "")}{commit}, torch {record.versions.get("torch", "")}, on
{record.device.name} ({record.device.kind}); {record.num_parameters:,} parameters, {record.train_time_s or 0:.0f} s of
training. `{RECORD}` has the whole config (hash {record.config_hash}) and every version; `{SUMS}` the checksums
(`sha256sum -c {SUMS}`). This `{CARD}` was generated from the record.
"""


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _options(options: object) -> str:
    return (
        ", ".join(f"{key}={value}" for key, value in options.items())
        if isinstance(options, dict) and options
        else "none"
    )
