"""Training: what is learned (tasks), how (one loop), and from scratch, in part, by distillation or by masking."""
