"""What the API and the worker agree on: names, models, ids, topology, states, settings. No I/O."""
