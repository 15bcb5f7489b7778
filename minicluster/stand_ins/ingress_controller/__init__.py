"""A stand-in for F5 NGINX Ingress Controller, of the standard library alone; ../README.md says what it does."""
