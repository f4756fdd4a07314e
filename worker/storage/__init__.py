"""The bucket: verbs, parallel transfers, presigned URLs."""

from worker.storage.client import StorageOptions
from worker.storage.content_type import content_type_for
from worker.storage.object_store import ObjectStore, PresignedUrl

__all__ = ["ObjectStore", "PresignedUrl", "StorageOptions", "content_type_for"]
