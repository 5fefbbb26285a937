"""Dataset directories and what is drawn from them: storage, decoders, plans and the loader."""
