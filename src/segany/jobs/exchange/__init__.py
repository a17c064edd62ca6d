"""Exchange of annotations between a project and files: COCO, YOLO-seg, LabelMe, SA-1B, label maps, project archives.

    report = import_annotations(store, "instances.json", "coco")
    report = export_annotations(store, "masks.zip", "label-maps", images=True)

What each format holds and what is lost is in docs/data.md, and in each report.
"""

from segany.jobs.exchange.bundle import Limits, SourceFile
from segany.jobs.exchange.exporting import ExportReport, export_annotations
from segany.jobs.exchange.handlers import export_handler, exported_file, import_handler
from segany.jobs.exchange.importing import ExchangeFormat, ImportReport, Skipped, import_annotations
from segany.jobs.exchange.uploads import Uploads

__all__ = [
    "ExchangeFormat",
    "ExportReport",
    "ImportReport",
    "Limits",
    "Skipped",
    "SourceFile",
    "Uploads",
    "export_annotations",
    "export_handler",
    "exported_file",
    "import_annotations",
    "import_handler",
]
