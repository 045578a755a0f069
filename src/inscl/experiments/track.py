"""What a tracker shows of a stream: the numbers of its newest stage."""

from dataclasses import replace

from inscl.experiments.results import StreamResult, stream_rows
from inscl.stages.metrics import metric_name


def stage_metrics(result: StreamResult) -> dict[str, float]:
    """The numbers of a stream's newest stage, and those of the stream as far as it has come.

    Parameters
    ----------
    result : StreamResult
        With the tasks learnt so far. Where an expert scores 0 there is no Relative Gain.

    Returns
    -------
    dict of str to float
        ``task/NAME/SCORE`` of every task that was scored, the metrics of docs/method.md, and what the stage cost.
    """
    try:
        rows = stream_rows(result)
    except ValueError:
        rows = stream_rows(replace(result, experts=None))
    newest, found = len(result.stages), {}
    for row in rows:
        if row.value is not None and row.task is None and row.stage in (None, newest):
            found[row.metric] = row.value
        elif row.value is not None and row.task is not None and row.stage == newest:
            found[f"task/{metric_name(row.task)}/{row.metric}"] = row.value
    return found
