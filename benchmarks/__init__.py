"""Side-by-side measurements of segany and other implementations of the same models: `python -m benchmarks.run`."""
