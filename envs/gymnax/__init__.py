"""Kind gymnax: Gymnax's continuous tasks on the device, with pictures. May import: envs.render, envs.types."""
