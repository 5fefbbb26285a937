"""What a run achieved: accuracy by shot group, the report and its figures."""
