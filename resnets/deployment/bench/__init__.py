"""How fast a network runs on this machine, by engine, batch size and threads."""
