"""Evaluation protocols of the papers: simulated clicks, boxes, automatic masks, and video object segmentation."""
