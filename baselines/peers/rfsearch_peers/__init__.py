"""Searches of receptive fields by others, as strategies of rfsearch: one file a method."""
