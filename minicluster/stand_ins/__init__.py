"""Stand-ins for what a cluster without a network cannot fetch: charts, images, the NGINX controller (README.md)."""
