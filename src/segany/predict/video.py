"""Objects through video: prompt them on any frame, and follow them forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segany.core.errors import ConfigError, check
from segany.core.extras import require_torch
from segany.imaging.frames import open_frames
from segany.imaging.frames.live import LiveFrames
from segany.imaging.image import DEFAULT_MAX_PIXELS

require_torch()

from segany.predict.video_session import VideoSession  # noqa: E402

if TYPE_CHECKING:
    from segany.runtime import ExportedModel
    from segany.runtime.torch_model import TorchModel


@dataclass(frozen=True)
class VideoConfig:
    """Settings of tracking. The defaults give what the official code gives with its own, but for the last.

    Attributes:
        motion_aware: choose among candidate masks, and which frames to remember, by how the object moves
            (SAMURAI), without any training.
        clean_area: holes and specks of masks of up to so many pixels are filled and removed; 0 for none.
            Only results are cleaned, not what is remembered.
        binarize_prompted: remember the masks of prompted frames as what is above the threshold, not as
            probabilities.
        remember_corrections: whether prompts on frames that have been tracked already make them frames that
            all others attend to, as first prompts do. Without it, as in the official code, such a frame is
            remembered like its neighbors only, and tracking over it again undoes the correction.
    """

    motion_aware: bool = False
    clean_area: int = 0
    binarize_prompted: bool = True
    remember_corrections: bool = True

    def __post_init__(self) -> None:
        check(self.clean_area >= 0, f"clean_area must not be negative, got {self.clean_area}.")


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
    ) -> None:
        """Wrap a model.

        Args:
            model: what `segany.load` returns for a model of the SAM 2 family.
            config: the settings.
            max_pixels: larger frames are refused.

        Raises:
            ConfigError: the model has no memory, as those for images alone and exported ones.
        """
        if not model.has_memory:
            raise ConfigError(
                f"{model.name} works on single images here. Load one with a memory, in PyTorch: sam2.1_hiera_tiny."
            )
        self.model = cast("TorchModel", model)
        self.config = config or VideoConfig()
        self.max_pixels = max_pixels

    def open(self, source: Any, *, resume: str | Path | None = None) -> VideoSession:
        """Open a video.

        Args:
            source: a video file, a folder of images, a list or an iterator of images, the number of a camera,
                or a `FrameSource`.
            resume: a file that `VideoSession.save` wrote of the same video, to go on from.

        Returns:
            A session, to be used in a `with` block.

        Raises:
            VideoError: the source cannot be opened, has no frames, or is not what `resume` was saved of.
            MissingExtraError: video files and cameras need `segany[video]`.
        """
        frames = open_frames(source, max_pixels=self.max_pixels)
        session = None
        try:
            session = VideoSession(self.model, self.config, frames, owns_frames=frames is not source)
            if resume is not None:
                session._restore(Path(resume))
        except BaseException:
            if session is not None:
                session.close()
            elif frames is not source:
                frames.close()
            raise
        return session

    def live(self) -> VideoSession:
        """A session without a video: frames come one by one through `VideoSession.step`."""
        return VideoSession(self.model, self.config, LiveFrames(self.max_pixels), owns_frames=True)
