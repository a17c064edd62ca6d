"""The version of the package, which manifests and results name."""

__version__ = "0.1.0"
