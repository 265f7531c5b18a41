"""The host's end of a character device: where a port's bytes go to and come from."""
