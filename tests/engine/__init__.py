"""What only a real Docker Engine can show."""
