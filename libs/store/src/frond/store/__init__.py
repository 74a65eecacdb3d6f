"""S3 objects with deadlines: streams in and out, conditional puts, ranges."""

from frond.store.client import Listed, ObjectStore, Stat, StoreSettings
from frond.store.marks import Marks
from frond.store.writer import MultipartWriter

__all__ = ["Listed", "Marks", "MultipartWriter", "ObjectStore", "Stat", "StoreSettings"]
