"""What host environments over MuJoCo share: OpenGL, settings, drawing. May import: envs.render, episodes, types."""
