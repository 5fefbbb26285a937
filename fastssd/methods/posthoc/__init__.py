"""Methods that train nothing: a new classifier on the features of a trained network."""
