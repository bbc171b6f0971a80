"""Serving of networks over HTTP: batching, models, and an ASGI application of them."""
