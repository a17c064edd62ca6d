"""Datasets of annotated images and videos: readers of their formats, training items and the data loader."""

from segany.data.coco import CocoDataset
from segany.data.image_folder import ImageFolder
from segany.data.item import AnnotatedImage, Dataset, SkippedItem, TrainingItem
from segany.data.labelme import LabelMeFolder
from segany.data.loader import Loader, LoadReport
from segany.data.mask_folder import MaskFolder
from segany.data.opening import open_dataset, open_images
from segany.data.sa1b import Sa1bFolder
from segany.data.shards import TarShards
from segany.data.subsets import only, split_by_name
from segany.data.transforms import LARGE_SCALE_JITTER, ItemConfig, make_item
from segany.data.video import AnnotatedVideo
from segany.data.video_folder import VideoFrames, read_video_dataset
from segany.data.yolo import YoloFolder, YoloReport, write_yolo

__all__ = [
    "LARGE_SCALE_JITTER",
    "AnnotatedImage",
    "AnnotatedVideo",
    "CocoDataset",
    "Dataset",
    "ImageFolder",
    "ItemConfig",
    "LabelMeFolder",
    "LoadReport",
    "Loader",
    "MaskFolder",
    "Sa1bFolder",
    "SkippedItem",
    "TarShards",
    "TrainingItem",
    "VideoFrames",
    "YoloFolder",
    "YoloReport",
    "make_item",
    "only",
    "open_dataset",
    "open_images",
    "read_video_dataset",
    "split_by_name",
    "write_yolo",
]
