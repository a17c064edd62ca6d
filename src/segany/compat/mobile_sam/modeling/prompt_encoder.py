"""The prompt encoder, as in `segment_anything`."""

from segany.compat.segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom, PromptEncoder

__all__ = ["PositionEmbeddingRandom", "PromptEncoder"]
