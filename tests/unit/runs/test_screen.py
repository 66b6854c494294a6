"""The final screen says what happened, in plain text that does not change by accident."""

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from krontime.runs.record import Metrics, Status
from krontime.runs.screen import already_done, final_screen, format_bytes, format_duration

COMPLETED = """\
krontime on ACSF1, seed 0: completed

Data       80 training, 20 validation and 100 test series; 2 classes
Protocol   validation carved from train (stratified, seed 0); checkpoint with the best
           val/accuracy; scaling per series; test split read once, at the end

                                     validation        test
           accuracy                       0.900       0.870
           balanced accuracy                  -       0.870
           AUROC                              -           -
           negative log likelihood        0.250           -

Cost       2 min 5 s of training, peak process memory 1.50 GiB, 123,456 parameters
Computed   on A Processor (cpu), 2 CPU threads, torch 2.13.0, config 0b9e0b3de2a2, commit
           0123456789 with changes
Folder     outputs/one
           record.json                  all numbers, with config, protocol and versions
           confusion_matrix.png         confusion matrix of the test split
           checkpoints/best.ckpt        checkpoint that was selected
           checkpoints/last.ckpt        checkpoint to resume from
Next       krontime evaluate run=outputs/one
           krontime predict run=outputs/one input=FILE output=FILE"""

INTERRUPTED = """\
krontime on ACSF1, seed 3: interrupted

Error      stopped by the user
Cost       not measured
Computed   on A Processor (cpu), 2 CPU threads, torch 2.13.0, config {hash}
Folder     outputs/two
Next       run the same command again; it resumes from the last checkpoint if there is one"""


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plain(text) -> str:
    """What a file or pipe gets."""
    stream = io.StringIO()
    Console(file=stream, width=80).print(text, soft_wrap=True, highlight=False)
    return stream.getvalue()


def test_golden_screen_of_a_completed_run(make_record):
    run_dir = Path("outputs/one")
    (run_dir / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "record.json", "confusion_matrix.png"):
        (run_dir / name).touch()
    record = make_record()
    expected = COMPLETED.replace("0b9e0b3de2a2", record.config_hash)
    assert final_screen(record, run_dir).plain == expected
    assert plain(final_screen(record, run_dir)) == expected + "\n"


def test_golden_screen_of_an_interrupted_run(make_record):
    record = make_record(
        seed=3,
        status=Status.INTERRUPTED,
        error="stopped by the user",
        protocol=None,
        num_parameters=None,
        train_time_s=None,
        peak_memory_bytes=None,
        git=None,
        finished_at=None,
    )
    assert final_screen(record, Path("outputs/two")).plain == INTERRUPTED.format(hash=record.config_hash)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(Status.FAILED, "fix the cause"), (Status.OUT_OF_MEMORY, "krontime plan")],
)
def test_a_failed_run_says_why_and_what_next(make_record, status, advice):
    record = make_record(status=status, error="first [bold]line[/bold]\n\nCUDA " + "out of memory " * 20)
    text = plain(final_screen(record, Path("outputs/x")))
    assert f"seed 0: {status.replace('_', ' ')}\n" in text
    assert "Error      first [bold]line[/bold]\n" in text
    assert " ".join(text.split()).count("out of memory") >= 20
    assert advice in text
    assert "krontime evaluate" not in text
    assert max(map(len, text.splitlines())) <= 96


def test_protocol_details_and_imbalance_are_told(make_record, make_protocol):
    record = make_record(
        protocol=make_protocol(
            split_method="group",
            group="patient",
            fold=1,
            selection_metric=None,
            train_class_counts={"normal": 1400, "日本": 7, "V": 90},
            preparation={"resample_length": 2048},
            windowing={"length": 512, "stride": 256},
            groups_in_train_and_validation=0,
            groups_in_train_and_test=12,
        )
    )
    text = " ".join(final_screen(record, Path("x")).plain.split())
    assert "(group by patient, fold 1, seed 0); last checkpoint; scaling per series" in text
    assert "resample length 2048; windows of length 512, stride 256" in text
    assert "stride 256; 12 groups have series in both train and test; test split read once" in text
    assert "3 classes, imbalanced: 1,400 training series of 'normal', 7 of '日本'" in text


def test_data_without_a_test_split(make_record, make_protocol):
    record = make_record(protocol=make_protocol(num_test=0), metrics=Metrics(val={"accuracy": 0.9}))
    text = final_screen(record, Path("x")).plain
    assert "0 test series" in text
    assert "no test split" in text
    assert "accuracy                       0.900           -" in text


def test_long_and_odd_folders_stay_in_one_piece(make_record):
    run_dir = Path("outputs") / ("very_long_name_" * 10) / "Bob's model=tcn,seed=0 [x] $HOME"
    text = plain(final_screen(make_record(), run_dir))
    assert f"Folder     {run_dir}\n" in text
    command = next(line for line in text.splitlines() if "krontime evaluate" in line)
    assert shlex.split(command)[-1] == f"run={run_dir}"  # what a shell makes of it
    assert str(run_dir) in plain(already_done(make_record(), run_dir))


def test_already_done_is_two_lines(make_record):
    record = make_record(metrics=Metrics(test={"accuracy": 0.5, "balanced_accuracy": None}))
    assert already_done(record, Path("outputs/one")).plain == (
        "krontime on ACSF1, seed 0: already done, test accuracy 0.500 (balanced -), finished 2026-01-02 03:06\n"
        "outputs/one  (force=true runs it again)"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125.4, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (3660, "1 h 1 min"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 KiB"), (600 * 2**10, "600 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**29, "1.50 GiB")]
)
def test_sizes(size, text):
    assert format_bytes(size) == text
