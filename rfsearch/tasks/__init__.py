"""What a network is trained and scored for."""
