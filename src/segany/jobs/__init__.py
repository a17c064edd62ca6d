"""Pipelines over many items that report their progress, can be canceled, and resume from records.

    from segany.jobs import DoneRecords, run
    from segany.jobs.automatic import AutomaticTask

    task = AutomaticTask(ModelRef("mobile_sam"), AutomaticConfig(), Path("out"))
    results = run(task, items, DoneRecords(Path("out/.segany")))

A `Task` defines the processing of one item. Tasks and items are small picklable values, so that executors other than
`run`, which works in this process, can run them in other processes or on other machines.
"""

from segany.jobs.pipeline import ItemResult, Task, Written, run
from segany.jobs.records import DoneRecords

__all__ = ["DoneRecords", "ItemResult", "Task", "Written", "run"]
