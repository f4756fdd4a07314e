"""The HTTP API in front of an endpoint: stateless, the bucket is its memory."""
