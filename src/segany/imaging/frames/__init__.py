"""Frames of videos, read one at a time from files, folders of images, arrays, streams and cameras."""

from segany.imaging.frames.opening import VideoInput, open_frames
from segany.imaging.frames.source import FrameSource

__all__ = ["FrameSource", "VideoInput", "open_frames"]
