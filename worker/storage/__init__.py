"""The bucket: verbs, parallel transfers, presigned URLs."""

from worker.storage.client import StorageOptions
from worker.storage.object_store import ObjectStore, PresignedUrl
from worker.storage.upload import content_type_for

__all__ = ["ObjectStore", "PresignedUrl", "StorageOptions", "content_type_for"]
