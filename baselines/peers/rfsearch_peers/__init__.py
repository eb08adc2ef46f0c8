"""Provide searches of receptive fields by others as strategies of rfsearch: one file per method."""
