"""What the API, the workers and the clients agree on, compared with what was last released."""
