"""The video session for live video, in which the caller passes frames one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segany.core.frame_result import FrameResult
from segany.imaging.frames.live import LiveFrames
from segany.imaging.image import ImageSource
from segany.predict.video_config import VideoConfig
from segany.predict.video_session import VideoSession

if TYPE_CHECKING:
    from segany.runtime.torch_model import TorchModel


class LiveVideoSession(VideoSession):
    """A session without a frame source: `step` takes the next frame, and only the latest frame can be prompted.

    It cannot be saved, since its frames are not available later. `VideoPredictor.live` creates it.
    """

    def __init__(self, model: TorchModel, config: VideoConfig, frames: LiveFrames, *, owner: str = "") -> None:
        """Start without frames and objects; arguments are those of `VideoSession`."""
        super().__init__(model, config, frames, owns_frames=True, owner=owner)
        self._frames = frames

    @property
    def frames(self) -> LiveFrames:
        """The frames of the video; only the latest can be read."""
        return self._frames

    def step(self, frame: ImageSource, *, logits: bool = False) -> FrameResult:
        """Add the next frame and track the objects to it.

        Args:
            frame: uint8 [H, W, 3], or any other image that `read_image` reads.
            logits: return `mask_logits` too.

        Returns:
            The objects in this frame; none before the first prompt. The frame can be prompted after this call.

        Raises:
            ImageError: the frame cannot be read.
            VideoError: the size differs from that of the first frame, or the session is closed.
        """
        with self._lock:
            self._check_open()
            number = self._frames.push(frame)
            self._features_of = None
            return self._track_frame(number, number, reverse=False, logits=logits)
