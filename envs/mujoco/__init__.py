"""What host environments over MuJoCo share: OpenGL, settings, the life of an episode."""
