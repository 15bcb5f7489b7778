"""A Kubernetes cluster with one node on this machine, built from Go modules and Debian packages: see README.md."""
