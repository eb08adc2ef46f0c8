"""What a network is trained and scored for: one task a file, their contract in `base`."""
