"""GeoTIFF in: validation, georeference, windows with cores and margins, range reads."""
