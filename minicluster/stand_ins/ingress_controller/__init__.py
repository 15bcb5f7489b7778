"""A stand-in for F5 NGINX Ingress Controller that needs only the standard library. ../README.md has its behaviours."""
