"""The running Trio task tree, as events: what it is, and then what of it has changed."""
