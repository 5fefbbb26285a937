"""Other projects' loaders in their best documented settings, one file each."""
