"""The whole system on one machine: servers, their definitions, and the processes of apps/ under one supervisor."""
