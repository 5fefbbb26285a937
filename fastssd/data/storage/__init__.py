"""Where the bytes of sample i are: one module per format of a dataset directory."""
