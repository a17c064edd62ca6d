"""Frame sources: video files, folders of images, arrays, iterators and cameras."""

from segany.imaging.frames.opening import VideoInput, open_frames
from segany.imaging.frames.source import FrameSource

__all__ = ["FrameSource", "VideoInput", "open_frames"]
