"""COCO, GeoJSON, GeoParquet, STAC and summaries, written as streams."""
