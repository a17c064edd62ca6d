"""Training: tasks (losses and parameters), one training loop, and recipes that combine them.

Recipes train from scratch, fine-tune, train adapters, distill, and pre-train by masked autoencoding.
"""
