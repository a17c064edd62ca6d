"""Values that the other packages exchange (prompts, embeddings, instances), errors, files, boxes, run-length encoding."""
