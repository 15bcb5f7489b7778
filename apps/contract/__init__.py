"""The contract between API and worker: names, models, ids, topology, states, settings. No I/O."""
