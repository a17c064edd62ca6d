"""Drawing masks, prompts and labels over images."""
