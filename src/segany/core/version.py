"""The version of the package, as written to manifests and result files."""

__version__ = "0.1.0"
