"""The command `evaluate`: score a finished run on its test split again."""

from omegaconf import DictConfig

from krontime.commands.options import check_options, folder_of
from krontime.config import resolve
from krontime.console import result, show
from krontime.errors import UserError
from krontime.metrics import MetricName
from krontime.runs import bundle, prepare
from krontime.runs.record import Record, Status
from krontime.runs.screen import evaluation
from krontime.storage import RECORD
from krontime.training.predict import Scorer, scores


def evaluate(config: DictConfig) -> dict[MetricName, float | None]:
    """Score the selected checkpoint of a run on its test split again.

    Raises:
        UserError: the run or its data cannot be read, the data has changed since, or it has no test split.
    """
    options = resolve.plain(config)
    check_options(options)
    run_dir = folder_of(options["run"])
    run = bundle.load(run_dir)
    record = Record.read(run_dir / RECORD)
    if record.status is not Status.COMPLETED:
        raise UserError(
            f"run={str(run_dir)!r}: expected a completed run; this one is {record.status.replace('_', ' ')}, and its "
            "test split stays unread until the training command has been run to its end"
        )
    source = run.config["data"]["source"]
    if bundle.is_bundle(run_dir) and options["paths"]["data"] is None and "<data>" in str(source):
        raise UserError(
            f"run={str(run_dir)!r}: a bundle knows no folder of the machine that it was made on; expected "
            "paths.data=FOLDER, where its data lies"
        )
    job = prepare.prepare(prepare.moved(run.config, options["paths"]))
    if record.protocol is not None and job.protocol.data_sha256 != record.protocol.data_sha256:
        raise UserError(
            f"run={str(run_dir)!r}: the data set {record.data!r} has changed since the run was trained; "
            "expected the data of then (paths.data=FOLDER where it has moved)"
        )
    if not len(job.split.test):
        raise UserError(f"run={str(run_dir)!r}: the data set {record.data!r} has no test split to score")
    scorer = Scorer.of(run.config, options["accelerator"])
    test = job.split.test
    probability = scorer.probabilities(run.module, job.data, test, masked=job.masked_for(test))
    again = scores(probability, job.data.labels[test], run.module.prior.cpu())
    show(evaluation(record, run_dir, again))
    result(run=run_dir, test=again, recorded=record.metrics.test)
    return again
