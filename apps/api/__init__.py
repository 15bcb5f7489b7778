"""The HTTP service: it accepts tasks into the broker, and tells what became of them."""
