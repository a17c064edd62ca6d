"""Builders of the SAM 2 models, by the names of the official configs and Hugging Face repositories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import torch

from segany.compat.sam2.modeling.sam2_base import SAM2Base
from segany.compat.sam2.overrides import Sam2Settings, parse_overrides
from segany.compat.sam2.sam2_video_predictor import SAM2VideoPredictor, SAM2VideoPredictorVOS
from segany.core.errors import ConfigError, UnknownModelError
from segany.hub.weights import fetch_weights
from segany.models.convert import read_checkpoint
from segany.models.registry import MODELS, ModelSpec
from segany.models.sam2.config import Sam2Config
from segany.nn.init_empty import init_empty_weights

Mode = Literal["eval", "train"]
Device = str | torch.device
Model = TypeVar("Model", bound=SAM2Base)

_SIZES = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}

HF_MODEL_ID_TO_FILENAMES = {
    f"facebook/sam{version}-hiera-{size.replace('_', '-')}": (
        f"configs/sam{version}/sam{version}_hiera_{letter}.yaml",
        f"sam{version}_hiera_{size}.pt",
    )
    for version in ("2", "2.1")
    for letter, size in _SIZES.items()
}
"""Hugging Face repository to the names of its config and its checkpoint."""

_CONFIGS = {
    PurePosixPath(config).stem: PurePosixPath(checkpoint).stem
    for config, checkpoint in HF_MODEL_ID_TO_FILENAMES.values()
}
"""Name of an official config to the name of the model."""

_POSTPROCESSING = (
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
)
_VIDEO_POSTPROCESSING = (
    *_POSTPROCESSING,
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=8",
)


def build_sam2(
    config_file: str,
    ckpt_path: str | Path | None = None,
    device: Device = "cuda",
    mode: Mode = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
) -> SAM2Base:
    """Build a model for images.

    Args:
        config_file: name of an official config, with or without folders, such as "configs/sam2.1/sam2.1_hiera_t.yaml".
        ckpt_path: the official checkpoint, or another one with its keys; by default weights are random.
        device: device of the model.
        mode: "eval", or another mode for a model that is in training mode.
        hydra_overrides_extra: overrides of the config, such as "++model.non_overlap_masks=true".
        apply_postprocessing: replace unstable single masks by the best multimask output, as the official code does.

    Raises:
        ConfigError: segany does not have the config or does not take an override.
        CheckpointError: the checkpoint cannot be read, or holds more than tensors.
        RuntimeError: its tensors are not those of the model.
    """
    overrides = [*hydra_overrides_extra, *(_POSTPROCESSING if apply_postprocessing else ())]
    return _build(SAM2Base, config_file, ckpt_path, device, mode, overrides)


def build_sam2_video_predictor(
    config_file: str,
    ckpt_path: str | Path | None = None,
    device: Device = "cuda",
    mode: Mode = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
) -> SAM2VideoPredictor:
    """Build a model for video.

    Args:
        config_file, ckpt_path, device, mode, hydra_overrides_extra: as for `build_sam2`.
        apply_postprocessing: as for `build_sam2`; and encode the memory of prompted frames from thresholded masks, and
            fill small holes.
        vos_optimized: return a `SAM2VideoPredictorVOS`, which is the same here.

    Raises:
        ConfigError, CheckpointError, RuntimeError: as for `build_sam2`.
    """
    # The official code puts its own overrides last, so that they win.
    overrides = [*hydra_overrides_extra, *(_VIDEO_POSTPROCESSING if apply_postprocessing else ())]
    kind = SAM2VideoPredictorVOS if vos_optimized else SAM2VideoPredictor
    return _build(kind, config_file, ckpt_path, device, mode, overrides)


def build_sam2_hf(
    model_id: str,
    device: Device = "cuda",
    mode: Mode = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
) -> SAM2Base:
    """Build a model for images with its official weights, which are downloaded on first use.

    Args:
        model_id: Hugging Face repository, such as "facebook/sam2.1-hiera-tiny".
        device, mode, hydra_overrides_extra, apply_postprocessing: as for `build_sam2`.

    Raises:
        UnknownModelError: there is no such repository in `HF_MODEL_ID_TO_FILENAMES`.
        WeightsError: the weights could not be downloaded.
        ConfigError: segany does not take an override.
    """
    config_file, path = _fetch(model_id)
    return build_sam2(config_file, path, device, mode, hydra_overrides_extra, apply_postprocessing)


def build_sam2_video_predictor_hf(
    model_id: str,
    device: Device = "cuda",
    mode: Mode = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
) -> SAM2VideoPredictor:
    """Build a model for video with its official weights; see `build_sam2_hf` and `build_sam2_video_predictor`."""
    config_file, path = _fetch(model_id)
    return build_sam2_video_predictor(
        config_file, path, device, mode, hydra_overrides_extra, apply_postprocessing, vos_optimized
    )


def _fetch(model_id: str) -> tuple[str, Path]:
    if model_id not in HF_MODEL_ID_TO_FILENAMES:
        known = ", ".join(HF_MODEL_ID_TO_FILENAMES)
        raise UnknownModelError(f"There are no SAM 2 weights {model_id!r}. Known repositories: {known}.")
    config_file, _ = HF_MODEL_ID_TO_FILENAMES[model_id]
    return config_file, fetch_weights(_spec(config_file))


def _spec(config_file: str) -> ModelSpec:
    name = _CONFIGS.get(PurePosixPath(str(config_file).replace("\\", "/")).name.removesuffix(".yaml"))
    if name is None:
        known = ", ".join(f"{config}.yaml" for config in _CONFIGS)
        raise ConfigError(f"segany has no SAM 2 config {config_file!r}. It has: {known}.")
    return MODELS[name]


def _build(
    kind: Callable[[Sam2Config, str, Sam2Settings], Model],
    config_file: str,
    ckpt_path: str | Path | None,
    device: Device,
    mode: str,
    overrides: Sequence[str],
) -> Model:
    spec = _spec(config_file)
    assert isinstance(spec.config, Sam2Config)
    settings = parse_overrides(overrides, Sam2Settings())
    # With a checkpoint, random weights would only be overwritten.
    with nullcontext() if ckpt_path is None else init_empty_weights():
        model = kind(spec.config, spec.name, settings)
    if ckpt_path is not None:
        model.load_state_dict(read_checkpoint(Path(ckpt_path)), assign=True)
    return model.float().to(device).train(mode != "eval")
