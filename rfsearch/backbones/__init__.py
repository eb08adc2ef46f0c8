"""Build the networks that a space can name. Each is an entry point of group `rfsearch.backbones`."""
