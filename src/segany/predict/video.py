"""The video predictor: opens sessions in which objects are prompted and tracked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segany.core.errors import ConfigError
from segany.core.extras import require_torch
from segany.imaging.frames import open_frames
from segany.imaging.frames.live import LiveFrames
from segany.imaging.image import DEFAULT_MAX_PIXELS
from segany.imaging.pixels import AS_STORED, PixelOptions

require_torch()

from segany.predict.file_video_session import FileVideoSession  # noqa: E402
from segany.predict.live_video_session import LiveVideoSession  # noqa: E402
from segany.predict.video_config import VideoConfig  # noqa: E402

if TYPE_CHECKING:
    from segany.runtime import ExportedModel
    from segany.runtime.torch_model import TorchModel


class VideoPredictor:
    """Opens videos to track objects in them.

    Example:
        >>> predictor = segany.VideoPredictor(segany.load("sam2.1_hiera_tiny"))
        >>> with predictor.open("clip.mp4") as session:
        ...     session.prompt(frame=0, object_id=1, prompt=segany.Prompt(box_xyxy=[10, 20, 200, 300]))
        ...     for result in session.propagate():
        ...         mask = result.mask_of(1)  # bool [H, W]
    """

    def __init__(
        self,
        model: TorchModel | ExportedModel,
        config: VideoConfig | None = None,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        pixel_options: PixelOptions = AS_STORED,
    ) -> None:
        """Make a predictor.

        Args:
            model: a model of the SAM 2 family, from `segany.load`.
            config: settings of tracking.
            max_pixels: frames with more pixels are refused.
            pixel_options: value range, bands and page of frames that are images and do not determine them.

        Raises:
            ConfigError: the model has no memory bank, such as SAM and exported models.
        """
        if not model.has_memory:
            raise ConfigError(
                f"{model.name} works on single images here. Load one with a memory, in PyTorch: sam2.1_hiera_tiny."
            )
        self.model = cast("TorchModel", model)
        self.config = config or VideoConfig()
        self.max_pixels, self.pixel_options = max_pixels, pixel_options

    def open(self, source: Any, *, resume: str | Path | None = None, owner: str = "") -> FileVideoSession:
        """Open a video.

        Args:
            source: a video file, a folder of images, a list or an iterator of images, the number of a camera,
                or a `FrameSource`.
            resume: a file that `FileVideoSession.save` wrote for the same video, to resume from.
            owner: owner of the session, available as `session.owner`.

        Returns:
            A session, to be used in a `with` block.

        Raises:
            VideoError: the source cannot be opened, has no frames, or is not the video of `resume`.
            MissingExtraError: video files and cameras need `segany[video]`.
        """
        frames = open_frames(source, max_pixels=self.max_pixels, pixel_options=self.pixel_options)
        try:
            return FileVideoSession(
                self.model,
                self.config,
                frames,
                owns_frames=frames is not source,
                owner=owner,
                resume=None if resume is None else Path(resume),
            )
        except BaseException:
            if frames is not source:
                frames.close()
            raise

    def live(self, *, owner: str = "") -> LiveVideoSession:
        """Open a session without a source; frames are passed to `LiveVideoSession.step` one by one."""
        return LiveVideoSession(self.model, self.config, LiveFrames(self.max_pixels, self.pixel_options), owner=owner)
