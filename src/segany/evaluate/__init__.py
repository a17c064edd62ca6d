"""Evaluation by the papers' protocols: simulated clicks and boxes, automatic masks, video."""
