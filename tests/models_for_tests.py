"""Models small enough for tests: real code, seeded weights, milliseconds."""

from __future__ import annotations

import torch
from tests.parity.cases import SMALL, SMALL_SAM2
from tests.parity.seeded import seeded_state
from torch import nn

from segany.kernels import optimize
from segany.models.convert import encoder_id
from segany.models.mobile_sam.config import TinyVitConfig
from segany.models.promptable import PromptableModel
from segany.models.sam.config import SamConfig, VitConfig
from segany.models.sam.model import Sam
from segany.models.sam2.config import MEMORY_2, MEMORY_2_1, HieraConfig, Sam2Config
from segany.models.sam2.model import Sam2
from segany.runtime.torch_model import TorchModel

SMALL_VIT = SamConfig(VitConfig(width=64, depth=3, heads=2, global_blocks=(1,), input_size=256))
SMALL_TINY_VIT = SamConfig(TinyVitConfig(input_size=256))

SMALL_HIERA = HieraConfig(heads=1, input_size=SMALL["input_size"], **SMALL_SAM2)
SMALL_SAM2_CONFIGS = {
    "sam2": Sam2Config(SMALL_HIERA, memory=MEMORY_2),
    "sam2.1": Sam2Config(SMALL_HIERA, memory=MEMORY_2_1),
}


def seed_weights(module: nn.Module) -> None:
    """Fill a module with weights that depend only on their names and shapes."""
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    module.load_state_dict({key: torch.from_numpy(value) for key, value in seeded_state(shapes).items()})
    module.eval()


def small_sam(config: SamConfig = SMALL_VIT) -> Sam:
    """With the forms for CPU inference, as `segany.load` puts them in; with gradients the plain ones run."""
    model = Sam(config, name="small")
    seed_weights(model)
    model.encoder_id = encoder_id(model.image_encoder)
    return optimize(model)


def small_sam2(version: str = "sam2.1") -> Sam2:
    model = Sam2(SMALL_SAM2_CONFIGS[version], name="small")
    seed_weights(model)
    model.encoder_id = encoder_id(model.image_encoder)
    return optimize(model)


def loaded(module: PromptableModel) -> TorchModel:
    """A model as `segany.load` returns it."""
    return TorchModel(module)
