"""Prompts, embeddings, instances and other values that packages exchange; errors, files, boxes, run-length encoding."""
