"""Chunks in, detections out: read ahead, batch, run, decode, write."""
