"""SSD's stages: which weights learn, from which batches, under which losses."""
