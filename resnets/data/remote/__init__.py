"""Files in remote places, read by ranges: https://, s3:// and gs://, by fsspec."""

from resnets.data.remote.folder import RemoteFolder
from resnets.data.remote.ranges import Place

__all__ = ["Place", "RemoteFolder"]
