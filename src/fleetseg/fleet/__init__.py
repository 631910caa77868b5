"""Federated learning with clients on other machines."""
