"""Work on many items that reports its progress, can be canceled, and resumes from what is recorded.

    from segany.jobs import DoneRecords, run
    from segany.jobs.automatic import AutomaticTask

    task = AutomaticTask(ModelRef("mobile_sam"), AutomaticConfig(), Path("out"))
    results = run(task, items, DoneRecords(Path("out/.segany")))

A `Task` says what is done with one item. It and its items are small values that can be pickled, so that `run`, which
works in this process, may have siblings that work elsewhere.
"""

from segany.jobs.pipeline import ItemResult, Task, Written, run
from segany.jobs.records import DoneRecords

__all__ = ["DoneRecords", "ItemResult", "Task", "Written", "run"]
