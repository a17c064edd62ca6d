"""Evaluation by the papers' protocols: simulated clicks and boxes, masks of everything, video."""
