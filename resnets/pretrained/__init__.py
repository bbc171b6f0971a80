"""Networks that others have published: the table of them, their download, and their class names."""
