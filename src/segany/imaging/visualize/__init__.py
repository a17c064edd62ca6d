"""Overlays: drawing of masks, prompts and labels over images."""
