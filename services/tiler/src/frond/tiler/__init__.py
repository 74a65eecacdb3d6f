"""Uploaded images in, chunks of planned windows out."""
